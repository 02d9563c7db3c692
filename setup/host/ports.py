"""Which ports the server uses: the public one that the reader chose, the private one that is remembered."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from setup.console import SetupError
from setup.host.processes import port_holder

# How far above the public port a free one is sought for the private API.
SEARCHED = 50


def is_free(port: int, address: str = "127.0.0.1", variable: str = "PORT") -> bool:
    """Whether a server could listen on this port of the loopback interface, or of another, now."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        # As servers do it, so that a connection that has just ended does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise SetupError(
                f"Port {port} cannot be used: {error.strerror}. Choose another with {variable}=."
            ) from error
    return True


def read_port(text: str) -> int:
    """The number in `PORT=`."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535 - SEARCHED:
        raise SetupError(f"PORT must be a number between 1 and {65535 - SEARCHED}, not {text!r}.")
    return int(text)


def require_free(
    port: int, address: str = "127.0.0.1", variable: str = "PORT", command: str = "make demo"
) -> None:
    """Refuse a taken port, with who holds it where that can be seen."""
    if not is_free(port, address, variable):
        holder = port_holder(port)
        blame = f" by {holder}" if holder else ""
        raise SetupError(f"Port {port} is taken{blame}. Choose another one: {command} {variable}={port + 10}")


def choose_private(public: int, remembered: int | None, free: Callable[[int], bool]) -> int:
    """The private API's port: the remembered one if free, else the first free one above the public port."""
    wanted: list[int] = [remembered] if remembered is not None and remembered != public else []
    wanted += range(public + 1, public + 1 + SEARCHED)
    for port in wanted:
        if free(port):
            return port
    raise SetupError(
        f"No port between {public + 1} and {public + SEARCHED} is free. Choose another with PORT=."
    )
