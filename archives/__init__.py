"""Zip files from strangers: check one before trusting it, unpack it inside bounds, pack a directory safely.

The private API checks what it accepts; the consumer checks again, unpacks inputs and packs outputs.
"""
