"""``infer nodes``: look at the machines that run models, drain one, resume it, forget one that is gone."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from inference_server_client.cli.invocation import (
    Invocation,
    columns,
    connection_options,
    facts,
    pass_invocation,
)
from inference_server_client.cli.reporting import moment
from inference_server_client.nodes import Gpu, Node, Slot
from inference_server_client.quantities import format_duration, format_size

_NAME = click.argument("name")


@click.group(
    invoke_without_command=True,
    epilog="""\b
Examples:
  infer nodes
  infer nodes --json | jq '.items[] | select(.state != "ready").name'
  infer nodes show gpu1
  infer nodes drain gpu1
  infer nodes resume gpu1""",
)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many."
)
@click.option("--cursor", help="Go on where the list before ended.")
@connection_options
@click.pass_context
def nodes(context: click.Context, *, limit: int, cursor: str | None) -> None:
    """List the machines that run models, or look after one (needs an admin's key)."""
    if context.invoked_subcommand is not None:
        return
    invocation = context.ensure_object(Invocation)
    page = invocation.client().nodes.page(limit=limit, cursor=cursor)
    if invocation.as_json:
        document = {"items": [node.document for node in page.items], "next_cursor": page.next_cursor}
        invocation.emit(document)
        return
    if not page.items:
        invocation.say("No node has ever reported.")
        return
    heading = ["NODE", "STATE", "SLOTS", "BUSY", "GPUS", "MEMORY", "FREE DISK", "HEARD"]
    invocation.show(columns(heading, [_row(node) for node in page.items]))
    if page.next_cursor:
        invocation.say(f"There are more: --cursor {page.next_cursor}")


@nodes.command(epilog="\b\nExample:\n  infer nodes show gpu1")
@_NAME
@connection_options
@pass_invocation
def show(invocation: Invocation, *, name: str) -> None:
    """Show one node: its machine, slots and what they run, GPUs, labels, and images."""
    node = invocation.client().nodes.get(name)
    invocation.answer(node.document, _node_facts(node))


@nodes.command(epilog="\b\nExample:\n  infer nodes drain gpu1")
@_NAME
@connection_options
@pass_invocation
def drain(invocation: Invocation, *, name: str) -> None:
    """Have a node take no tasks from now on; what runs there goes on to its end."""
    node = invocation.client().nodes.drain(name)
    busy = sum(slot.task_id is not None for slot in node.slots)
    rest = f"{busy} of its slots still run a task." if busy else "Nothing runs there."
    _answer(invocation, node, f"{node.name} takes no more tasks. {rest}")


@nodes.command(epilog="\b\nExample:\n  infer nodes resume gpu1")
@_NAME
@connection_options
@pass_invocation
def resume(invocation: Invocation, *, name: str) -> None:
    """Have a node take tasks again."""
    node = invocation.client().nodes.resume(name)
    _answer(invocation, node, f"{node.name} takes tasks again.")


@nodes.command(epilog="\b\nExample:\n  infer nodes forget gpu1")
@_NAME
@connection_options
@pass_invocation
def forget(invocation: Invocation, *, name: str) -> None:
    """Take a node that is gone off the list, and set its name free; refused while it is heard of."""
    invocation.client().nodes.forget(name)
    if invocation.as_json:
        invocation.emit({"deleted": [name]})
    else:
        invocation.say(f"Forgot {name}.")


def _answer(invocation: Invocation, node: Node, sentence: str) -> None:
    if invocation.as_json:
        invocation.emit(node.document)
    else:
        invocation.say(sentence)


def _row(node: Node) -> list[str]:
    busy = sum(slot.task_id is not None for slot in node.slots)
    return [
        node.name,
        node.state,
        str(len(node.slots)),
        str(busy),
        _gpus(node.gpus),
        _size(node.machine.get("memory_bytes")),
        _size(node.disk.get("free_bytes")),
        _heard(node.heard_at),
    ]


def _gpus(gpus: tuple[Gpu, ...]) -> str:
    """Such as ``2 x 24 GiB``, the largest first."""
    sizes = [gpu.memory_bytes for gpu in sorted(gpus, key=lambda gpu: -gpu.memory_bytes)]
    return ", ".join(f"{sizes.count(size)} x {format_size(size)}" for size in dict.fromkeys(sizes))


def _node_facts(node: Node) -> str:
    machine, disk = node.machine, node.disk
    free, total = _size(disk.get("free_bytes")), _size(disk.get("total_bytes"))
    slots = [(f"slot {slot.name}", _slot(slot, node.gpus)) for slot in node.slots]
    return facts(
        [
            ("node", node.name),
            ("state", node.state),
            ("heard", f"{_heard(node.heard_at)}, first {moment(node.first_heard_at)}"),
            ("cpus", f"{machine.get('cpus', 0):g}"),
            ("memory", _size(machine.get("memory_bytes"))),
            ("architecture", machine.get("architecture")),
            ("engine", machine.get("engine_version")),
            ("disk", f"{free} free of {total}" if total else ""),
            ("labels", ", ".join(f"{name}={value}" for name, value in node.labels.items())),
            *slots,
            *[(f"gpu {gpu.uuid}", f"{gpu.name}, {format_size(gpu.memory_bytes)}") for gpu in node.gpus],
            *[("image" if not number else "", image) for number, image in enumerate(node.images)],
        ]
    )


def _slot(slot: Slot, gpus: tuple[Gpu, ...]) -> str:
    card = next((gpu.name for gpu in gpus if gpu.uuid == slot.gpu), slot.gpu)
    work = f"runs {slot.task_id} ({slot.model})" if slot.task_id else "free"
    return f"{slot.kind}, {f'{card}, ' if card else ''}{work}"


def _size(value: object) -> str:
    return format_size(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _heard(when: datetime | None) -> str:
    if when is None or when.tzinfo is None:
        return "never"
    seconds = max(0.0, (datetime.now(UTC) - when).total_seconds())
    return f"{format_duration(seconds)} ago" if seconds < 86400 else moment(when)
