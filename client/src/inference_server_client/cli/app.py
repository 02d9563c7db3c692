"""The ``infer`` command as a whole: its group, and the one place where errors become an exit status.

``main`` is called by ``__main__`` and by tests. No error leaves it as a traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import metadata

import click

from inference_server_client.cli import admin, keys, login, models, nodes, output, run, tasks
from inference_server_client.cli.exit_codes import (
    EXIT_CODES_HELP,
    ExitCode,
    describe_error,
    exit_code_of,
    sentence_of,
)
from inference_server_client.cli.invocation import Invocation, connection_options


def _version() -> str:
    try:
        return metadata.version("inference-server-client")
    except metadata.PackageNotFoundError:
        return "of the source tree"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"""\b
Examples:
  infer login https://inference.example.org
  infer models list
  infer run digits pictures/ -o results/
\b
Environment: INFER_SERVER (or INFERENCE_SERVER_URL), INFER_KEY,
INFER_KEY_FILE, INFER_CA_CERT, INFER_CONFIG_DIR, NO_COLOR; all win
over what infer login kept. A key is never given as an
option, where other users of the machine would see it;
https://user:KEY@host/ in INFER_SERVER works too.

{EXIT_CODES_HELP}""",
)
@click.version_option(_version(), prog_name="infer")
@connection_options
def infer() -> None:
    """Send files to a model in a container on a server, and get its results back."""


for _command in (
    run.run, tasks.submit, tasks.status, tasks.logs, output.output, tasks.cancel, tasks.retry,
    tasks.list_tasks, tasks.delete, models.models, nodes.nodes, keys.keys,
    login.login, login.logout, login.whoami, admin.admin,
):  # fmt: skip
    infer.add_command(_command)


def main(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run ``infer`` with these arguments; returns the exit status."""
    invocation = Invocation(environment=os.environ if environment is None else environment)
    try:
        result = infer.main(list(arguments), prog_name="infer", standalone_mode=False, obj=invocation)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has read enough. What is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    except Exception as error:  # noqa: BLE001  # People get a sentence, whatever it is.
        return _report(error, invocation, arguments)
    except KeyboardInterrupt as error:
        return _report(error, invocation, arguments)
    finally:
        invocation.at_end.close()
    return result if isinstance(result, int) else ExitCode.OK


def _report(error: BaseException, invocation: Invocation, arguments: Sequence[str]) -> int:
    code = exit_code_of(error)
    if invocation.environment.get("INFER_DEBUG"):
        invocation.say("".join(traceback.format_exception(error)))
    # A usage error may come before the option was read.
    if invocation.as_json or "--json" in arguments:
        event = {"event": "error"} if invocation.as_events else {}
        invocation.emit({**event, "error": describe_error(error)})
    sentence = sentence_of(error)
    if code is ExitCode.MISTAKE:
        sentence = f"infer made a mistake ({type(error).__name__}: {sentence}). "
        sentence += "Please report it; INFER_DEBUG=1 shows where."
    elif isinstance(error, click.UsageError) and error.ctx is not None:
        sentence = f"{sentence}\nTry: {error.ctx.command_path} --help"
    elif isinstance(error, KeyboardInterrupt | click.Abort):
        sentence = "Interrupted."
    invocation.say(sentence, style="" if code is ExitCode.INTERRUPTED else "red")
    return code
