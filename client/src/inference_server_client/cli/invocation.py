"""One run of ``infer``: what flags and environment say, the client made of it, and where output goes.

Data goes to standard output, everything said to people to standard error. With ``--json``, standard output
holds JSON and nothing else. Text from the server is made safe here before a terminal sees it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from inference_server_client.address import DEFAULT_SERVER
from inference_server_client.cli.connection import Connection, choose, login_path
from inference_server_client.client import Client
from inference_server_client.errors import InferenceServerError
from inference_server_client.login_file import Login, read_login
from inference_server_client.quantities import parse_duration, parse_size
from inference_server_client.retries import RetryPolicy
from inference_server_client.terminal_text import sanitise

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Invocation:
    """Filled by the options as click reads them: those after a command win over those before it."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    server: str | None = None
    key_file: Path | None = None
    ca_cert: Path | None = None
    retries: int | None = None
    as_json: bool = False
    # A command that prints JSON lines names its error an event too.
    as_events: bool = False
    at_end: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __post_init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

    @property
    def login_path(self) -> Path:
        """Where a login is kept."""
        return login_path(self.environment)

    def login(self) -> Login | None:
        """What ``infer login`` kept."""
        return read_login(self.login_path)

    def connection(self) -> Connection:
        """What options, environment and login describe, in this order."""
        return choose(
            self.environment, self.login(), server=self.server, key_file=self.key_file, ca_cert=self.ca_cert
        )

    def client(self) -> Client:
        """The client for ``connection``."""
        return self.connect(self.connection())

    def connect(self, connection: Connection) -> Client:
        """A client, closed when the command has ended."""
        address = connection.address
        if connection.key and not address.encrypted and not address.loopback:
            self.say(
                f"Warning: the key travels to {address.url} without encryption; use https where you can."
            )
        retry = RetryPolicy() if self.retries is None else RetryPolicy(attempts=self.retries + 1)
        client = Client(
            address.url, connection.key, ca_cert=connection.ca_cert, retry=retry, on_retry=self._say_retry
        )
        self.at_end.callback(client.close)
        return client

    def _say_retry(self, error: InferenceServerError, delay_seconds: float) -> None:
        # The first, short delays mend most things; people need not hear of them.
        if delay_seconds >= 1:
            self.say(f"{error} Trying again in {delay_seconds:.0f} s.", style="yellow")

    def say(self, text: str, *, style: str = "") -> None:
        """A line for people, on standard error."""
        self.console.print(Text(sanitise(text, newlines=True), style=style))

    def show(self, text: str) -> None:
        """A line of data for people, on standard output."""
        # A terminal of another encoding shows a question mark rather than an error.
        encoding = sys.stdout.encoding or "utf-8"
        click.echo(sanitise(text, newlines=True).encode(encoding, "replace").decode(encoding))

    def emit(self, document: object) -> None:
        """One JSON document, on standard output; ASCII only, so that no terminal is moved by it."""
        click.echo(json.dumps(document, ensure_ascii=True, default=dict))

    def answer(self, document: object, text: str) -> None:
        """The result of a command: the server's JSON, or a text."""
        if self.as_json:
            self.emit(document)
        else:
            self.show(text)


def columns(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of sanitised cells in aligned columns; no cell is ever cut."""
    table = [[sanitise(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(cell_len(row[i]) for row in table) for i in range(len(heading))]
    lines = (
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        for row in table
    )
    return "\n".join(line.rstrip() for line in lines)


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """Names and values, one a line; pairs without a value are left out."""
    shown = [(name, sanitise(str(value))) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in shown)


class _Quantity(click.ParamType[float]):
    """A size or duration as people write it."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SIZE = _Quantity("size", parse_size)
DURATION = _Quantity("duration", parse_duration)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    invocation = context.ensure_object(Invocation)
    name = parameter.name or ""
    if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        setattr(invocation, name, value)


_CONNECTION_OPTIONS = [
    click.option(
        "--server", metavar="URL", expose_value=False, callback=_remember,
        help=f"Where the server is [INFER_SERVER; else {DEFAULT_SERVER}].",
    ),
    click.option(
        "--key-file", type=click.Path(path_type=Path), expose_value=False, callback=_remember,
        help="A file that holds the key [INFER_KEY_FILE; or the key itself in INFER_KEY].",
    ),
    click.option(
        "--ca-cert", type=click.Path(path_type=Path), expose_value=False, callback=_remember,
        help="Certificates (PEM) that the server's must be signed by [INFER_CA_CERT].",
    ),
    click.option(
        "--retries", type=click.IntRange(0, 100), expose_value=False, callback=_remember,
        help="How often a call that got no answer is sent again [4].",
    ),
    click.option(
        "--json", "as_json", is_flag=True, is_eager=True, expose_value=False, callback=_remember,
        help="Print JSON, and nothing else, on standard output.",
    ),
]  # fmt: skip


def connection_options(command: F) -> F:
    """The options that the group and every command take."""
    for option in reversed(_CONNECTION_OPTIONS):
        command = option(command)
    return command


pass_invocation = click.make_pass_decorator(Invocation)
