"""Where the zips lie: named, immutable sequences of bytes with a known size and SHA-256.

A blob appears under its key only when it is complete. Keys look like ``inputs/3f…``; no key is ever
taken from a caller. ``store`` says what every store does, ``directory`` and ``s3`` are two, ``choice`` opens
the one that the settings ask for.
"""
