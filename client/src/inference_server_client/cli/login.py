"""``infer login``, ``logout`` and ``whoami``: a server and a key, kept for the commands that follow."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from inference_server_client.address import (
    DEFAULT_SERVER,
    ServerAddress,
    check_key,
    parse_server_address,
)
from inference_server_client.cli.connection import Connection, choose, server_from_environment
from inference_server_client.cli.invocation import Invocation, connection_options, facts, pass_invocation
from inference_server_client.cli.reporting import moment
from inference_server_client.errors import ConfigurationError
from inference_server_client.login_file import Login, others_may_read, remove_login, write_login
from inference_server_client.results import Key

# More than any key; what else somebody pipes in by mistake is not read to its end.
_LONGEST_KEY = 4096


@click.command(
    epilog="""\b
Examples:
  infer login https://inference.example.org
  infer login https://inference.example.org --key-file anna.key
  infer login http://127.0.0.1:8080 < .state/admin.key
  infer login https://localhost:8443 --ca-cert .state/ca.crt
\b
The key is asked for where a terminal is, read from standard input
elsewhere, and never given as an option. It is tried before it is kept,
in a file that only you may read (INFER_CONFIG_DIR moves it)."""
)
@click.argument("url", required=False)
@click.option("--url", "url_option", metavar="URL", help="The same as the argument.")
@connection_options
@pass_invocation
def login(invocation: Invocation, *, url: str | None, url_option: str | None) -> None:
    """Keep a server's address and a key, so that no other command needs to be told."""
    if url and url_option and url != url_option:
        raise click.UsageError("Give the server's address once.")
    address = parse_server_address(url or url_option or invocation.server or _ask_server(invocation))
    # A login that is there must not stand in for what is being typed; nor must INFER_KEY.
    given = _given(invocation, address)
    key = given.key or _ask_key()
    connection = replace(given, key=key)
    client = invocation.connect(connection)
    own = client.keys.own()
    ca_cert = connection.ca_cert.absolute() if connection.ca_cert else None
    path = invocation.login_path
    write_login(path, Login(server=address.url, key=key, ca_cert=ca_cert))
    if invocation.as_json:
        invocation.emit({"server": address.url, "key": own.document, "login_file": str(path)})
        return
    invocation.say(f"Logged in to {address.url} as {_described(own)}; kept in {path}.")
    for name in ("INFER_KEY", "INFER_KEY_FILE", "INFER_SERVER", "INFERENCE_SERVER_URL"):
        if invocation.environment.get(name):
            invocation.say(f"{name} is set and wins over the login.", style="yellow")


@click.command(epilog="\b\nExample:\n  infer logout")
@connection_options
@pass_invocation
def logout(invocation: Invocation) -> None:
    """Forget what login kept. The key itself stays valid: an admin revokes it with infer keys revoke."""
    path = invocation.login_path
    removed = remove_login(path)
    if invocation.as_json:
        invocation.emit({"removed": str(path) if removed else None})
    else:
        invocation.say(f"Removed {path}." if removed else "There was no login to forget.")


@click.command(epilog="\b\nExamples:\n  infer whoami\n  infer whoami --json | jq -r .key.role")
@connection_options
@pass_invocation
def whoami(invocation: Invocation) -> None:
    """Show the server, the key that opens it (never the key itself), and where both come from."""
    connection = invocation.connection()
    own = invocation.connect(connection).keys.own()
    document = {"server": connection.address.url, "key": own.document, "key_from": connection.key_from}
    text = facts(
        [
            ("server", connection.address.url),
            ("key", own.name),
            ("id", own.id),
            ("role", own.role),
            ("models", None if own.models is None else ", ".join(own.models)),
            ("created", moment(own.created_at)),
            ("last used", moment(own.last_used_at)),
            ("expires", moment(own.expires_at) or "never"),
            ("from", connection.key_from),
            ("certificates", connection.ca_cert),
        ]
    )
    invocation.answer(document, text)
    if connection.key_from == "infer login" and others_may_read(invocation.login_path):
        invocation.say(
            f"Others may read {invocation.login_path}; run: chmod 600 {invocation.login_path}", style="yellow"
        )


def _given(invocation: Invocation, address: ServerAddress) -> Connection:
    """What options say for ``address``, as if there were neither a login nor a variable with a key."""
    key_variables = {"INFER_KEY", "INFER_KEY_FILE"}
    environment = {k: v for k, v in invocation.environment.items() if k not in key_variables}
    # The usual name for standard input, which is read where no other key is given.
    key_file = None if invocation.key_file == Path("-") else invocation.key_file
    given = choose(environment, None, server=address.url, key_file=key_file, ca_cert=invocation.ca_cert)
    return replace(given, address=address, key=given.key or address.key)


def _ask_server(invocation: Invocation) -> str:
    known = server_from_environment(invocation.environment)
    kept = invocation.login()
    suggested = known or (kept.server if kept else DEFAULT_SERVER)
    if not sys.stdin.isatty():
        return suggested
    answer: str = click.prompt("Server", default=suggested, err=True)
    return answer


def _ask_key() -> str:
    if sys.stdin.isatty():
        typed: str = click.prompt("Key (not shown)", hide_input=True, err=True)
        return check_key(typed)
    text = sys.stdin.read(_LONGEST_KEY)
    if not text.strip():
        raise ConfigurationError("There is no key: give it on standard input, or with --key-file FILE.")
    return check_key(text, "The key on standard input")


def _described(key: Key) -> str:
    until = f", until {moment(key.expires_at)}" if key.expires_at else ""
    return f"{key.name} ({key.role}{until})"
