"""``infer models``: add, list, show, update and rm."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from inference_server_client.cli.invocation import (
    DURATION,
    SIZE,
    Invocation,
    columns,
    connection_options,
    facts,
    pass_invocation,
)
from inference_server_client.cli.reporting import HumanReporter, OnProgress
from inference_server_client.cli.transfers import packed
from inference_server_client.models import ModelSettings
from inference_server_client.quantities import format_duration, format_size
from inference_server_client.results import Model

F = TypeVar("F", bound=Callable[..., Any])


class _KeepTime(click.ParamType[float | str]):
    """For how long data of ended tasks is kept: a duration, ``forever`` (0), or the server's ``default``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == _SERVERS_OWN:
            return _SERVERS_OWN
        return 0.0 if value == "forever" else cast(float, DURATION.convert(value, param, ctx))


_SERVERS_OWN = "default"
KEEP = _KeepTime()
_RETENTION = ("input_retention_seconds", "output_retention_seconds", "log_retention_seconds")

# Each option's name is that of the server's field, so that settings pass through without a table.
_SETTINGS = [
    click.option("--description", help="A sentence on what the model does."),
    click.option("--gpu/--no-gpu", "use_gpu", default=None, help="Run it with a GPU, or without [without]."),
    click.option("--time", "time_seconds", type=DURATION, help="The longest a run may take: 30m, 2h."),
    click.option("--memory", "memory_bytes", type=SIZE, help="Memory of a run: 4g."),
    click.option(
        "--cpus", type=click.FloatRange(min=0, min_open=True), help="CPUs of a run, fractions allowed."
    ),
    click.option("--pids", type=click.IntRange(min=1), help="Processes and threads of a run."),
    click.option("--output-size", "output_bytes", type=SIZE, help="The most a run may write to its output."),
    click.option("--output-files", type=click.IntRange(min=1), help="The most files a run may write."),
    click.option("--log-size", "log_bytes", type=SIZE, help="How much of its log is kept."),
    click.option("--shm", "shm_bytes", type=SIZE, help="Shared memory (/dev/shm)."),
    click.option("--tmp", "tmp_bytes", type=SIZE, help="Room in /tmp."),
    click.option(
        "--profile", type=click.Choice(["strict", "compatible"]), help="How tightly it is held [strict]."
    ),
    click.option("--network/--no-network", default=None, help="Let it reach the network, or not [not]."),
    click.option("--tmp-exec/--no-tmp-exec", default=None, help="Let programs in /tmp be run, or not [not]."),
    click.option(
        "--allow-empty-output/--require-output",
        default=None,
        help="Whether a run may write nothing [it may not].",
    ),
    click.option(
        "--pull", "pull_policy", type=click.Choice(["if_missing", "always"]), help="When the image is pulled."
    ),
    click.option("--input-mountpoint", metavar="PATH", help="Where it reads its input [/input]."),
    click.option("--output-mountpoint", metavar="PATH", help="Where it writes its output [/output]."),
    click.option("--model-mountpoint", metavar="PATH", help="Where it reads its static content [/model]."),
    click.option("--keep-input", "input_retention_seconds", type=KEEP, help="How long inputs are kept."),
    click.option(
        "--keep-output",
        "output_retention_seconds",
        type=KEEP,
        help="How long outputs are kept: 30d, forever, or default for the server's own time.",
    ),
    click.option("--keep-log", "log_retention_seconds", type=KEEP, help="How long logs are kept."),
    click.option("--enable/--disable", "enabled", default=None, help="Whether it takes tasks [it does]."),
]
_CONTENT = click.option(
    "--content", metavar="PATH", type=click.Path(path_type=Path),
    help="Static content (weights, say) for /model: a directory, a file, or a zip.",
)  # fmt: skip
_MODEL = click.argument("model_id", metavar="ID")


def _settings_options(command: F) -> F:
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


@click.group(epilog="\b\nExamples:\n  infer models list\n  infer models add echo registry.example.org/echo:1")
@connection_options
def models() -> None:
    """Register, list, show, change and remove models."""


@models.command(
    epilog="""\b
Examples:
  infer models add echo echo:1
  infer models add digits digits:2 --content weights/ --description "Reads digits"
  infer models add segment registry.example.org/segment:3 --gpu --memory 16g --time 2h"""
)
@_MODEL
@click.argument("image")
@_CONTENT
@_settings_options
@click.option("--classic-id", is_flag=True, help="Allow spaces and colons in ID, as the 1.x interface did.")
@connection_options
@pass_invocation
def add(
    invocation: Invocation,
    /,
    *,
    model_id: str,
    image: str,
    content: Path | None,
    classic_id: bool,
    **options: Any,
) -> None:
    """Register the container image IMAGE as the model ID."""
    client = invocation.client()
    with _content(invocation, content) as (archive, on_progress):
        model = client.models.add(
            model_id,
            image,
            content=archive,
            classic_id=classic_id,
            on_progress=on_progress,
            **_given(options),
        )
    invocation.answer(model.document, _model_facts(model))


@models.command(
    epilog="""\b
Examples:
  infer models update digits --image digits:3
  infer models update digits --content weights/ --time 1h
  infer models update digits --keep-input 1d --keep-output 30d --keep-log default
  infer models update digits --disable"""
)
@_MODEL
@click.option("--image", help="Another container image; makes a new version.")
@_CONTENT
@_settings_options
@connection_options
@pass_invocation
def update(
    invocation: Invocation, /, *, model_id: str, image: str | None, content: Path | None, **options: Any
) -> None:
    """Change what is given and leave the rest; another image or content makes a new version."""
    settings = _given(options)
    if image is None and content is None and not settings:
        raise click.UsageError("Say what to change; see infer models update --help.")
    client = invocation.client()
    with _content(invocation, content) as (archive, on_progress):
        model = client.models.update(
            model_id, image=image, content=archive, on_progress=on_progress, **settings
        )
    invocation.answer(model.document, _model_facts(model))


@models.command(
    "list", epilog="\b\nExamples:\n  infer models list\n  infer models list --json | jq '.items[].version'"
)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many."
)
@click.option("--cursor", help="Go on where the list before ended.")
@connection_options
@pass_invocation
def list_models(invocation: Invocation, *, limit: int, cursor: str | None) -> None:
    """List the models."""
    page = invocation.client().models.page(limit=limit, cursor=cursor)
    document = {"items": [model.document for model in page.items], "next_cursor": page.next_cursor}
    rows = [
        [
            model.id,
            str(model.version or ""),
            model.image,
            " ".join(filter(None, ["gpu" if model.use_gpu else "", "" if model.enabled else "disabled"])),
            (model.description or "").replace("\n", " "),
        ]
        for model in page.items
    ]
    invocation.answer(document, columns(["MODEL", "VERSION", "IMAGE", "", "DESCRIPTION"], rows))
    if page.next_cursor and not invocation.as_json:
        invocation.say(f"There are more: --cursor {page.next_cursor}")


@models.command(epilog="\b\nExample:\n  infer models show digits")
@_MODEL
@connection_options
@pass_invocation
def show(invocation: Invocation, *, model_id: str) -> None:
    """Show one model with its limits."""
    model = invocation.client().models.get(model_id)
    invocation.answer(model.document, _model_facts(model))


@models.command(epilog="\b\nExample:\n  infer models rm digits")
@_MODEL
@connection_options
@pass_invocation
def rm(invocation: Invocation, *, model_id: str) -> None:
    """Remove a model; refused while tasks of it have not ended."""
    invocation.client().models.remove(model_id)
    if invocation.as_json:
        invocation.emit({"deleted": [model_id]})
    else:
        invocation.say(f"Removed {model_id}.")


def _given(options: dict[str, Any]) -> ModelSettings:
    given = {name: value for name, value in options.items() if value is not None}
    return cast(ModelSettings, given | {name: None for name in _RETENTION if given.get(name) == _SERVERS_OWN})


@contextlib.contextmanager
def _content(invocation: Invocation, path: Path | None) -> Iterator[tuple[Path | None, OnProgress | None]]:
    if path is None:
        yield None, None
        return
    reporter = HumanReporter(invocation)
    with (
        packed([path], reporter) as archive,
        reporter.transfer("Sending", archive.stat().st_size) as on_progress,
    ):
        yield archive, on_progress


def _model_facts(model: Model) -> str:
    limits = [
        (name.removesuffix("_seconds").removesuffix("_bytes").replace("_", " "), _limit_text(name, value))
        for name, value in model.limits.items()
    ]
    content = model.content
    return facts(
        [
            ("model", model.id),
            ("description", model.description),
            ("image", model.image),
            ("image id", model.image_id),
            ("version", model.version),
            ("enabled", "yes" if model.enabled else "no"),
            ("gpu", "yes" if model.use_gpu else "no"),
            ("pull", model.pull_policy),
            ("content", content and f"{format_size(content.size_bytes)}, sha256 {content.sha256}"),
            *((f"keeps {name.split('_')[0]}", _kept(model.document.get(name))) for name in _RETENTION),
            ("sandbox", ", ".join(f"{name} {_plain(value)}" for name, value in model.sandbox.items())),
            *limits,
        ]
    )


def _kept(seconds: object) -> str:
    """For how long, as the option says it; nothing where the server's own time counts."""
    if not isinstance(seconds, int | float):
        return ""
    return format_duration(seconds) if seconds else "forever"


def _plain(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _limit_text(name: str, value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name.endswith("_bytes"):
            return format_size(int(value))
        if name.endswith("_seconds"):
            return format_duration(value)
    return str(value)
