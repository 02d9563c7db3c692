"""The only thing the internet talks to: an allow-list relay to the private API, and older clients' facades.

It holds no data and judges no key; it adds limits, and speaks older dialects.
"""
