"""The settings of a model as options of ``infer models add`` and ``update``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from inference_server_client.cli.invocation import DURATION, SIZE
from inference_server_client.models import ModelSettings

F = TypeVar("F", bound=Callable[..., Any])


class _KeepTime(click.ParamType[float | str]):
    """For how long data of ended tasks is kept: a duration, ``forever`` (0), or the server's ``default``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == _SERVERS_OWN:
            return _SERVERS_OWN
        return 0.0 if value == "forever" else cast(float, DURATION.convert(value, param, ctx))


class _Label(click.ParamType[tuple[str, str] | str]):
    """A label that a node must have: ``site=north``, or ``any``."""

    name = "label"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str] | str:
        if value == _ANY or not isinstance(value, str):
            return cast(str, value)
        name, equals, label = value.partition("=")
        if not (name and equals):
            self.fail(f"{value!r} is not a label such as site=north.", param, ctx)
        return name, label


class _SizeOrAny(click.ParamType[float | str]):
    """A size, or ``any`` to ask for none."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        return _ANY if value == _ANY else cast(float, SIZE.convert(value, param, ctx))


_SERVERS_OWN = "default"
_ANY = "any"
KEEP = _KeepTime()
RETENTION = ("input_retention_seconds", "output_retention_seconds", "log_retention_seconds")

# Each option's name is that of the server's field, so that settings pass through without a table.
_SETTINGS = [
    click.option("--description", help="A sentence on what the model does."),
    click.option("--gpu/--no-gpu", "use_gpu", default=None, help="Run it with a GPU, or without [without]."),
    click.option("--time", "time_seconds", type=DURATION, help="The longest a run may take: 30m, 2h."),
    click.option("--memory", "memory_bytes", type=SIZE, help="Memory of a run: 4g."),
    click.option(
        "--cpus", type=click.FloatRange(min=0, min_open=True), help="CPUs of a run, fractions allowed."
    ),
    click.option(
        "--gpu-memory",
        "gpu_memory_bytes",
        type=_SizeOrAny(),
        help="Memory that its GPU must have: 24g, or any.",
    ),
    click.option(
        "--node-label",
        "node_labels",
        metavar="NAME=VALUE",
        type=_Label(),
        multiple=True,
        help="A label that its node must have: site=north; may be repeated. any takes them all back.",
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


def settings_options(command: F) -> F:
    """The options of both commands that save a model."""
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


def given_settings(options: dict[str, Any]) -> ModelSettings:
    """What of these options was given, as the client takes it."""
    labels = options.get("node_labels")
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    if labels:
        if _ANY in labels and len(labels) > 1:
            raise click.UsageError("--node-label any stands alone.")
        given["node_labels"] = None if _ANY in labels else dict(labels)
    if given.get("gpu_memory_bytes") == _ANY:
        given["gpu_memory_bytes"] = None
    return cast(ModelSettings, given | {name: None for name in RETENTION if given.get(name) == _SERVERS_OWN})
