"""``infer submit``, ``status``, ``logs``, ``cancel``, ``retry``, ``list`` and ``delete``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from inference_server_client.cli.invocation import (
    DURATION,
    Invocation,
    columns,
    connection_options,
    facts,
    pass_invocation,
)
from inference_server_client.cli.reporting import HumanReporter, describe_state, moment
from inference_server_client.cli.run import PATHS
from inference_server_client.cli.transfers import packed
from inference_server_client.cli.transfers import submit as send
from inference_server_client.quantities import format_size
from inference_server_client.results import BlobFacts, Task
from inference_server_client.tasks import raise_unless_succeeded
from inference_server_client.terminal_text import LineSplitter

_STATES = ["queued", "starting", "running", "succeeded", "failed", "canceled"]
TASK = click.argument("task_id", metavar="TASK")
TIMEOUT = click.option("--timeout", type=DURATION, help="With --wait: for at most this long (30m, 2h).")


@click.command(
    epilog="""\b
Examples:
  infer submit digits pictures/
  TASK=$(infer submit digits task.zip) && infer output --wait $TASK -o results/
  infer submit digits task.zip --idempotency-key night-2026-11-21"""
)
@click.argument("model")
@PATHS
@click.option("--priority", type=int, help="Higher runs earlier.")
@click.option(
    "--idempotency-key", metavar="TEXT", help="Submitting again with the same key makes no second task."
)
@connection_options
@pass_invocation
def submit(
    invocation: Invocation,
    *,
    model: str,
    paths: Sequence[Path],
    priority: int | None,
    idempotency_key: str | None,
) -> None:
    """Send files to MODEL and print the id of the task, without waiting for it."""
    client = invocation.client()
    client.models.get(model)
    reporter = HumanReporter(invocation)
    with packed(paths, reporter) as archive:
        task = send(client, model, archive, reporter, priority=priority, idempotency_key=idempotency_key)
    invocation.answer(task.document, task.id)


@click.command(
    epilog="""\b
Examples:
  infer status 0f3c…
  infer status --wait 0f3c… && echo it succeeded
  infer status 0f3c… --json | jq -r .state"""
)
@TASK
@click.option("--wait", is_flag=True, help="Wait until the task has ended; the exit status says how.")
@TIMEOUT
@connection_options
@pass_invocation
def status(invocation: Invocation, *, task_id: str, wait: bool, timeout: float | None) -> None:
    """Show one task."""
    client = invocation.client()
    task = client.tasks.wait(task_id, timeout_seconds=timeout) if wait else client.tasks.get(task_id)
    invocation.answer(task.document, _task_facts(task))
    if wait:
        raise_unless_succeeded(task)


@click.command(
    epilog="""\b
Examples:
  infer logs 0f3c…
  infer logs -f 0f3c…
  infer logs --raw 0f3c… > model.log"""
)
@TASK
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Begin at this byte.")
@click.option("--raw", is_flag=True, help="Print the model's bytes as they are, escape sequences included.")
@connection_options
@pass_invocation
def logs(invocation: Invocation, *, task_id: str, follow: bool, offset: int, raw: bool) -> None:
    """Print what the model has logged; with --json one object {"line": …} a line."""
    if raw and invocation.as_json:
        raise click.UsageError("--raw and --json exclude each other.")
    invocation.as_events = True
    splitter = LineSplitter()
    for chunk in invocation.client().tasks.logs(task_id, offset=offset, follow=follow):
        if raw:
            sys.stdout.buffer.write(chunk.data)
            sys.stdout.buffer.flush()
        else:
            _show_lines(invocation, splitter.feed(chunk.data))
    _show_lines(invocation, splitter.finish())


@click.command(epilog="\b\nExample:\n  infer cancel 0f3c…")
@TASK
@connection_options
@pass_invocation
def cancel(invocation: Invocation, *, task_id: str) -> None:
    """Stop a task; its container is gone within seconds."""
    task = invocation.client().tasks.cancel(task_id)
    invocation.answer(
        task.document, f"{task.id} is being canceled." if not task.terminal else _task_facts(task)
    )


@click.command(epilog="\b\nExample:\n  TASK=$(infer retry 0f3c…)")
@TASK
@connection_options
@pass_invocation
def retry(invocation: Invocation, *, task_id: str) -> None:
    """Run the same input again, and print the id of the new task."""
    task = invocation.client().tasks.retry(task_id)
    invocation.answer(task.document, task.id)


@click.command(epilog="\b\nExample:\n  infer delete 0f3c… 9a41…")
@click.argument("task_ids", metavar="TASK...", nargs=-1, required=True)
@connection_options
@pass_invocation
def delete(invocation: Invocation, *, task_ids: Sequence[str]) -> None:
    """Remove tasks with their data; one that has not ended is canceled."""
    client = invocation.client()
    for task_id in task_ids:
        client.tasks.delete(task_id)
        if not invocation.as_json:
            invocation.say(f"Deleted {task_id}.")
    if invocation.as_json:
        invocation.emit({"deleted": list(task_ids)})


@click.command(
    "list",
    epilog="""\b
Examples:
  infer list
  infer list --state running --model digits
  infer list --limit 1000 --json | jq -r '.items[].id'""",
)
@click.option("--state", type=click.Choice(_STATES), help="Only tasks in this state.")
@click.option("--model", help="Only tasks of this model.")
@click.option("--after", type=click.DateTime(), help="Only tasks created after this moment (UTC).")
@click.option("--before", type=click.DateTime(), help="Only tasks created before this moment (UTC).")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@click.option("--cursor", help="Go on where the list before ended.")
@connection_options
@pass_invocation
def list_tasks(
    invocation: Invocation,
    *,
    state: str | None,
    model: str | None,
    after: datetime | None,
    before: datetime | None,
    limit: int,
    cursor: str | None,
) -> None:
    """List tasks: your own, or all for an admin."""
    page = invocation.client().tasks.page(
        limit=limit, cursor=cursor, state=state, model=model,
        created_after=after and after.replace(tzinfo=UTC),
        created_before=before and before.replace(tzinfo=UTC),
    )  # fmt: skip
    document = {"items": [task.document for task in page.items], "next_cursor": page.next_cursor}
    rows = [[task.id, task.model, moment(task.created_at), describe_state(task)] for task in page.items]
    invocation.answer(document, columns(["TASK", "MODEL", "CREATED", "STATE"], rows))
    if page.next_cursor and not invocation.as_json:
        invocation.say(f"There are more: --cursor {page.next_cursor}")


def _task_facts(task: Task) -> str:
    return facts(
        [
            ("task", task.id),
            ("model", f"{task.model} version {task.model_version}" if task.model_version else task.model),
            ("state", describe_state(task)),
            ("reason", task.reason),
            ("exit code", task.exit_code),
            ("created", moment(task.created_at)),
            ("started", moment(task.started_at)),
            ("finished", moment(task.finished_at)),
            ("kept until", moment(task.expires_at)),
            ("input", _blob_text(task.input)),
            ("output", _blob_text(task.output)),
        ]
    )


def _blob_text(blob: BlobFacts | None) -> str | None:
    return None if blob is None else f"{format_size(blob.size_bytes)}, sha256 {blob.sha256}"


def _show_lines(invocation: Invocation, lines: Sequence[str]) -> None:
    for line in lines:
        if invocation.as_json:
            invocation.emit({"line": line})
        else:
            invocation.show(line)
