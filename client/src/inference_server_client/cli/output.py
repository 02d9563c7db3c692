"""``infer output``: the results of a task, whenever and from wherever one comes back for them."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from inference_server_client.cli.invocation import Invocation, connection_options, pass_invocation
from inference_server_client.cli.reporting import HumanReporter
from inference_server_client.cli.tasks import TASK, TIMEOUT
from inference_server_client.cli.transfers import check_directory, fetch, watch
from inference_server_client.tasks import raise_unless_succeeded


@click.command(
    epilog="""\b
Examples:
  infer output 0f3c… -o results/
  infer output --wait 0f3c… -o results/ --force
  infer output 0f3c… --zip result.zip"""
)
@TASK
@click.option(
    "-o", "--output", "directory", metavar="DIR", type=click.Path(path_type=Path), help="Unpack here."
)
@click.option(
    "--zip", "archive", metavar="FILE", type=click.Path(path_type=Path), help="Keep the zip, packed."
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option("--wait", is_flag=True, help="Wait until the task has ended.")
@TIMEOUT
@connection_options
@pass_invocation
def output(
    invocation: Invocation,
    *,
    task_id: str,
    directory: Path | None,
    archive: Path | None,
    force: bool,
    wait: bool,
    timeout: float | None,
) -> None:
    """Fetch the results of a task. A download that broke off goes on where it was."""
    if (directory is None) == (archive is None):
        raise click.UsageError("Give either -o DIR or --zip FILE.")
    target = directory or archive
    check_directory(directory or Path(archive or "").absolute().parent)
    if archive is not None and archive.exists() and not force:
        raise click.UsageError(f"{archive} exists; --force replaces it.")
    client = invocation.client()
    reporter = HumanReporter(invocation)
    task = client.tasks.get(task_id)
    if wait:
        option = "-o" if directory else "--zip"
        command = f"infer output --wait {task.id} {option} {shlex.quote(str(target))}"
        task = watch(client, task, reporter, with_log=False, timeout_seconds=timeout, command=command)
    raise_unless_succeeded(task)
    if directory is not None:
        files = fetch(client, task, directory, reporter, force=force)
        if invocation.as_json:
            names = [str(path) for path in files]
            invocation.emit({"task": task.document, "directory": str(directory), "files": names})
    elif archive is not None:
        with reporter.transfer("Fetching", task.output.size_bytes if task.output else 0) as on_progress:
            client.tasks.download_output(task, archive, on_progress=on_progress)
        if invocation.as_json:
            invocation.emit({"task": task.document, "zip": str(archive)})
        else:
            invocation.say(f"The results are in {archive}.", style="green")
