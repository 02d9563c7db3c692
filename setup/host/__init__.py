"""This machine: what it is, its packages, processes and ports. Knows no other room of setup."""
