"""``infer keys``: add, list and revoke, for an admin."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from inference_server_client.cli.invocation import (
    DURATION,
    Invocation,
    columns,
    connection_options,
    pass_invocation,
)
from inference_server_client.cli.reporting import moment
from inference_server_client.errors import AnswerError
from inference_server_client.results import Key


@click.group(epilog="\b\nExamples:\n  infer keys list\n  infer keys add anna --key-out anna.key")
@connection_options
def keys() -> None:
    """Make, list and revoke keys (needs an admin's key)."""


@keys.command(
    epilog="""\b
Examples:
  infer keys add anna --key-out anna.key
  infer keys add nightly --expires 90d > nightly.key
  infer keys add node-7 --role worker --key-out worker.key
  infer keys add anna-at-home --role worker --model lung --model liver --key-out home.key"""
)
@click.argument("name")
@click.option("--role", type=click.Choice(["user", "admin", "worker"]), default="user", show_default=True)
@click.option("--expires", type=DURATION, help="The key opens nothing after this long: 90d.")
@click.option(
    "--model",
    "models",
    metavar="MODEL",
    multiple=True,
    help="With --role worker: the key takes the tasks of this model only; may be repeated.",
)
@click.option(
    "--key-out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the key to a new file that only you read.",
)
@connection_options
@pass_invocation
def add(  # Each is an option.
    invocation: Invocation,
    *,
    name: str,
    role: str,
    expires: float | None,
    models: tuple[str, ...],
    key_out: Path | None,
) -> None:
    """Make a key and print it. It is shown this once; the server keeps only a hash."""
    if models and role != "worker":
        raise click.UsageError("--model binds worker keys only; add --role worker.")
    client = invocation.client()
    expires_at = None if expires is None else datetime.now(UTC) + timedelta(seconds=expires)
    # The file is made first: a key that could not be written down would be lost, yet open doors.
    descriptor = None if key_out is None else os.open(key_out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        key = client.keys.add(name, role=role, expires_at=expires_at, models=models)
        if key.secret is None:
            raise AnswerError(
                f"The server made the key {key.id} without showing it; revoke it and try again."
            )
    except BaseException:
        if descriptor is not None and key_out is not None:
            os.close(descriptor)
            key_out.unlink()
        raise
    if descriptor is not None:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(key.secret + "\n")
    document = dict(key.document)
    if key_out is not None:
        # Whoever asks for a file does not want the key in a log as well.
        document |= {"key": None, "key_file": str(key_out)}
    if invocation.as_json:
        invocation.emit(document)
        return
    invocation.say(f"Key {key.id} for {key.name} ({key.role}); it is shown this once.")
    if key_out is None:
        invocation.show(key.secret)
    else:
        invocation.say(f"Written to {key_out}.")


@keys.command("list", epilog="\b\nExample:\n  infer keys list")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many."
)
@click.option("--cursor", help="Go on where the list before ended.")
@connection_options
@pass_invocation
def list_keys(invocation: Invocation, *, limit: int, cursor: str | None) -> None:
    """List the keys, without their secrets."""
    page = invocation.client().keys.page(limit=limit, cursor=cursor)
    document = {"items": [key.document for key in page.items], "next_cursor": page.next_cursor}
    rows = [
        [key.id, key.name, key.role, _bound_to(key)]
        + [moment(when) for when in (key.created_at, key.last_used_at, key.expires_at, key.revoked_at)]
        for key in page.items
    ]
    heading = ["ID", "NAME", "ROLE", "MODELS", "CREATED", "LAST USED", "EXPIRES", "REVOKED"]
    invocation.answer(document, columns(heading, rows))
    if page.next_cursor and not invocation.as_json:
        invocation.say(f"There are more: --cursor {page.next_cursor}")


@keys.command(epilog="\b\nExample:\n  infer keys revoke 3")
@click.argument("key_id", metavar="ID")
@connection_options
@pass_invocation
def revoke(invocation: Invocation, *, key_id: str) -> None:
    """Take a key back; it opens nothing from now on."""
    invocation.client().keys.revoke(key_id)
    if invocation.as_json:
        invocation.emit({"deleted": [key_id]})
    else:
        invocation.say(f"Revoked {key_id}.")


def _bound_to(key: Key) -> str:
    if key.role != "worker":
        return ""
    return "all" if key.models is None else ", ".join(key.models)
