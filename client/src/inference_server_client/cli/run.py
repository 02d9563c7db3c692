"""``infer run``: from files here to results here, in one go."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from inference_server_client.cli.invocation import DURATION, Invocation, connection_options, pass_invocation
from inference_server_client.cli.reporting import reporter_for
from inference_server_client.cli.transfers import check_directory, fetch, packed, submit, watch
from inference_server_client.errors import InputError

PATHS = click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))


@click.command(
    "run",
    epilog="""\b
Examples:
  infer run digits pictures/ -o results/
  infer run digits a.png b.png -o results/
  infer run digits task.zip -o results/ --force
  infer run digits pictures/ -o results/ --json | jq -r .event
\b
With --json every line is an object; its "event" is skipped,
transfer_started, transfer_finished, submitted, changed, log,
finished or error.""",
)
@click.argument("model")
@PATHS
@click.option(
    "-o", "--output", "directory", required=True, metavar="DIR", type=click.Path(path_type=Path),
    help="Where the results go; made where missing.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace files that exist in DIR.")
@click.option("--priority", type=int, help="Higher runs earlier.")
@click.option("--timeout", type=DURATION, help="Stop waiting after this long (the task goes on): 30m, 2h.")
@click.option("--no-logs", is_flag=True, help="Do not show the model's log.")
@connection_options
@pass_invocation
def run(  # noqa: PLR0913  # One argument for each option.
    invocation: Invocation,
    *,
    model: str,
    paths: Sequence[Path],
    directory: Path,
    force: bool,
    priority: int | None,
    timeout: float | None,
    no_logs: bool,
) -> None:
    """Send files to MODEL, wait, and unpack the results into DIR.

    One directory: its contents are sent. One .zip: it is sent as it is. Several paths: each is sent under
    its own name. Links are not followed; what is left out is said. Ctrl-C asks whether to cancel the task
    or to leave it running; without a terminal it is left running.
    """
    client = invocation.client()
    reporter = reporter_for(invocation)
    check_directory(directory)
    # Asked first, because a wrong name or key is better heard before gigabytes are zipped and sent.
    if not client.models.get(model).enabled:
        raise InputError(f"The model {model} is disabled; ask its administrator, or see: infer models list")
    with packed(paths, reporter, leave_out=directory) as archive:
        task = submit(client, model, archive, reporter, priority=priority)
    command = f"infer output --wait {task.id} -o {shlex.quote(str(directory))}"
    task = watch(client, task, reporter, with_log=not no_logs, timeout_seconds=timeout, command=command)
    fetch(client, task, directory, reporter, force=force)
