"""``infer models``: add, list, show, update and rm."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from inference_server_client.cli.invocation import (
    Invocation,
    columns,
    connection_options,
    facts,
    pass_invocation,
)
from inference_server_client.cli.model_options import RETENTION, given_settings, settings_options
from inference_server_client.cli.reporting import HumanReporter, OnProgress
from inference_server_client.cli.transfers import packed
from inference_server_client.quantities import format_duration, format_size
from inference_server_client.results import Model

_CONTENT = click.option(
    "--content", metavar="PATH", type=click.Path(path_type=Path),
    help="Static content (weights, say) for /model: a directory, a file, or a zip.",
)  # fmt: skip
_MODEL = click.argument("model_id", metavar="ID")


@click.group(epilog="\b\nExamples:\n  infer models list\n  infer models add echo registry.example.org/echo:1")
@connection_options
def models() -> None:
    """Register, list, show, change and remove models."""


@models.command(
    epilog="""\b
Examples:
  infer models add echo echo:1
  infer models add digits digits:2 --content weights/ --description "Reads digits"
  infer models add segment registry.example.org/segment:3 --gpu --memory 16g --time 2h
  infer models add large registry.example.org/large:1 --gpu --gpu-memory 24g --node-label site=north"""
)
@_MODEL
@click.argument("image")
@_CONTENT
@settings_options
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
            **given_settings(options),
        )
    _answer(invocation, model)


@models.command(
    epilog="""\b
Examples:
  infer models update digits --image digits:3
  infer models update digits --content weights/ --time 1h
  infer models update digits --keep-input 1d --keep-output 30d --keep-log default
  infer models update digits --gpu-memory any --node-label any
  infer models update digits --disable"""
)
@_MODEL
@click.option("--image", help="Another container image; makes a new version.")
@_CONTENT
@settings_options
@connection_options
@pass_invocation
def update(
    invocation: Invocation, /, *, model_id: str, image: str | None, content: Path | None, **options: Any
) -> None:
    """Change what is given and leave the rest; another image or content makes a new version."""
    settings = given_settings(options)
    if image is None and content is None and not settings:
        raise click.UsageError("Say what to change; see infer models update --help.")
    client = invocation.client()
    with _content(invocation, content) as (archive, on_progress):
        model = client.models.update(
            model_id, image=image, content=archive, on_progress=on_progress, **settings
        )
    _answer(invocation, model)


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


def _answer(invocation: Invocation, model: Model) -> None:
    """The model as it is saved, and what stands in its way."""
    invocation.answer(model.document, _model_facts(model))
    for warning in model.warnings:
        invocation.say(f"Warning: {warning}", style="yellow")


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
            ("gpu memory", model.gpu_memory_bytes and format_size(model.gpu_memory_bytes)),
            ("node labels", ", ".join(f"{name}={value}" for name, value in model.node_labels.items())),
            ("pull", model.pull_policy),
            ("content", content and f"{format_size(content.size_bytes)}, sha256 {content.sha256}"),
            *((f"keeps {name.split('_')[0]}", _kept(model.document.get(name))) for name in RETENTION),
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
