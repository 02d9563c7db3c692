"""Older dialects of the interface, each a thin translation onto native calls.

``bootstrap`` offers a request to each facade before the native allow-list; none reads or keeps task data.
"""
