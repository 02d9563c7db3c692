"""``infer admin``: what only those who run the server look at."""

from __future__ import annotations

import click

from inference_server_client.cli.invocation import Invocation, columns, connection_options, pass_invocation
from inference_server_client.cli.reporting import moment
from inference_server_client.dead_letters import DeadLetter

_SHOWN_CHARACTERS = 100


@click.group(epilog="\b\nExample:\n  infer admin dead-letters")
@connection_options
def admin() -> None:
    """Look after a server (needs an admin's key)."""


@admin.command(
    "dead-letters",
    epilog="""\b
Examples:
  infer admin dead-letters
  infer admin dead-letters --json | jq '.dead_letters[].body'
  infer admin dead-letters --clear""",
)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many."
)
@click.option("--clear", is_flag=True, help="Throw all of them away.")
@connection_options
@pass_invocation
def dead_letters(invocation: Invocation, *, limit: int, clear: bool) -> None:
    """Show the broker's messages that no consumer could read.

    They only announce tasks: what the message was about is announced again by itself, and no task is
    lost with it. Many of them mean that something else writes to the queues, or that releases are mixed.
    """
    client = invocation.client()
    if clear:
        removed = client.dead_letters.clear()
        invocation.answer({"removed": removed}, f"Removed {removed}.")
        return
    found = client.dead_letters.list(limit=limit)
    if invocation.as_json:
        invocation.emit(found.document)
        return
    if not found.count:
        invocation.say("There are none.")
        return
    rows = [
        [moment(letter.received_at), letter.queue or "", letter.reason or "", _shown(letter)]
        for letter in found.items
    ]
    invocation.show(columns(["RECEIVED", "QUEUE", "REASON", "MESSAGE"], rows))
    if found.count > len(found.items):
        invocation.say(f"These are the oldest {len(found.items)} of {found.count}.")


def _shown(letter: DeadLetter) -> str:
    """The message on one line, its beginning only."""
    body = " ".join(letter.body.split())
    cut = letter.truncated or len(body) > _SHOWN_CHARACTERS
    encoding = "" if letter.body_encoding == "utf-8" else f"({letter.body_encoding}) "
    return encoding + body[:_SHOWN_CHARACTERS] + ("…" if cut else "")
