"""The embedded server, which needs no stack: `make demo` and `make down`."""
