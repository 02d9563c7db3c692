"""Bring a machine from nothing to a running server: the room behind every target of the Makefile.

`venv.sh` makes the Python that all the rest runs in. The services never import from here.
"""
