"""What the consumer meets outside itself, the engine and the server, each behind one module.

Every other room of the consumer enters here; nothing here knows of attempts or slots.
"""
