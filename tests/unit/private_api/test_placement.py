"""Which slot may run which model, and the words for one that none could run."""

import pytest

from contracts.messages import SlotKind
from contracts.nodes import DiskFacts, GpuFacts, MachineFacts, NodeReport, SlotFacts
from private_api.decisions.limits import DEFAULT_LIMITS
from private_api.decisions.placement import (
    NodeOffer,
    NodeState,
    Offer,
    Requirement,
    fits,
    node_state,
    offer_of,
    offers_of,
    requirement_of,
    unmet,
    waiting_for,
)
from private_api.decisions.reporting import report_seconds

GIB = 1024**3
CPU, GPU = SlotKind.CPU, SlotKind.GPU


def cpu(memory=64, cpus=16.0, **labels):
    return Offer(kind=CPU, memory_bytes=memory * GIB, cpus=cpus, labels=labels)


def gpu(gpu_memory, memory=64, cpus=16.0, **labels):
    return Offer(
        kind=GPU, gpu_memory_bytes=int(gpu_memory * GIB), memory_bytes=memory * GIB, cpus=cpus, labels=labels
    )


def node(*slots, name="n", state=NodeState.READY):
    return NodeOffer(name=name, state=state, slots=slots)


def asks(kind=CPU, gpu_memory=None, memory=None, cpus=None, **labels):
    return Requirement(
        kind=kind,
        gpu_memory_bytes=gpu_memory and int(gpu_memory * GIB),
        memory_bytes=memory and int(memory * GIB),
        cpus=cpus,
        node_labels=labels or None,
    )


@pytest.mark.parametrize(
    ("asked", "offer", "so"),
    [
        (asks(), cpu(), True),
        (asks(), gpu(24), False),
        (asks(GPU), cpu(), False),
        (asks(GPU), gpu(11), True),
        (asks(GPU, gpu_memory=24), gpu(24), True),
        (asks(GPU, gpu_memory=24), gpu(11), False),
        # Cards show less than they are sold with: 24 GB as 24,564 MiB, 16 GB with error correction as 15,360.
        (asks(GPU, gpu_memory=24), gpu(24_564 / 1024), True),
        (asks(GPU, gpu_memory=16), gpu(15), True),
        (asks(GPU, gpu_memory=16), gpu(12), False),
        (asks(memory=64), cpu(memory=63), True),
        (asks(memory=64), cpu(memory=32), False),
        (asks(cpus=16), cpu(cpus=16), True),
        (asks(cpus=16.5), cpu(cpus=16), False),
        (asks(site="north"), cpu(site="north", disk="ssd"), True),
        (asks(site="north"), cpu(site="south"), False),
        (asks(site="north", disk="ssd"), cpu(site="north"), False),
    ],
)
def test_a_slot_fits_what_it_has(asked, offer, so):
    assert fits(asked, offer) is so


@pytest.mark.parametrize(
    ("asked", "offers", "words"),
    [
        (asks(GPU, gpu_memory=24), [gpu(11), gpu(8)], "24 GB of GPU memory; the largest node has 11"),
        (asks(GPU, gpu_memory=1.5), [gpu(0.75)], "1.5 GB of GPU memory; the largest node has 768 MB"),
        (asks(GPU, gpu_memory=24), [cpu()], "a GPU; no node has one"),
        (asks(), [gpu(24)], "a CPU slot; no node has one"),
        (asks(memory=128), [cpu(memory=64), cpu(memory=32)], "128 GB of memory; the largest node has 64"),
        (asks(cpus=32), [cpu(cpus=16)], "32 CPUs; the largest node has 16"),
        (asks(site="north"), [cpu(site="south")], "the label site=north; no node has it"),
        (asks(b="2", a="1"), [cpu(a="1")], "the labels a=1, b=2; no node has them all"),
        # Each is there, but never together
        (
            asks(memory=64, site="north"),
            [cpu(memory=8, site="north"), cpu(memory=64)],
            "64 GB of memory; the largest node that fits otherwise has 8",
        ),
        (
            asks(GPU, site="north"),
            [cpu(site="north"), gpu(24)],
            "the label site=north; no node that fits otherwise has it",
        ),
        (asks(GPU, gpu_memory=8, site="north"), [gpu(11, site="north")], None),
    ],
)
def test_what_no_slot_has_is_said_with_the_most_that_there_is(asked, offers, words):
    assert unmet(asked, offers) == words


@pytest.mark.parametrize(
    ("asked", "nodes", "words"),
    [
        (asks(GPU), [], "a worker with a GPU slot; none is connected at the moment"),
        (
            asks(),
            [node(cpu(), state=NodeState.SILENT), node(cpu(), state=NodeState.LEFT)],
            "a worker with a CPU slot; none is connected at the moment",
        ),
        (asks(), [node(cpu())], None),
        (
            asks(GPU, gpu_memory=24),
            [node(gpu(11)), node(gpu(80), state=NodeState.SILENT)],
            "24 GB of GPU memory; the largest node has 11",
        ),
        (
            asks(),
            [node(cpu(), state=NodeState.DRAINING)],
            "a node that takes tasks; each that could run it is draining",
        ),
        (
            asks(),
            [node(cpu(), state=NodeState.DRAINING), node(cpu(), state=NodeState.NO_ROOM)],
            "room on a node's disk; each node that could run it has too little",
        ),
        (asks(), [node(cpu(), state=NodeState.NO_ROOM), node(cpu())], None),
        (
            asks(GPU),
            [node(cpu()), node(gpu(11), state=NodeState.DRAINING)],
            "a node that takes tasks; each that could run it is draining",
        ),
    ],
)
def test_a_task_waits_for_what_the_present_nodes_lack(asked, nodes, words):
    assert waiting_for(asked, nodes) == words


def test_limits_that_nobody_chose_ask_nothing_of_a_node():
    asked = requirement_of(CPU, DEFAULT_LIMITS.to_json(), None, None)
    assert fits(asked, Offer(kind=CPU, memory_bytes=GIB, cpus=1.0, labels={}))
    chosen = {**DEFAULT_LIMITS.to_json(), "memory_bytes": 8 * GIB, "cpus": 4.0}
    asked = requirement_of(CPU, chosen, None, {})
    assert (asked.memory_bytes, asked.cpus, asked.node_labels) == (8 * GIB, 4.0, None)


def test_gpu_memory_counts_only_for_what_runs_with_a_gpu():
    assert requirement_of(CPU, DEFAULT_LIMITS.to_json(), 24 * GIB, None).gpu_memory_bytes is None
    assert requirement_of(GPU, DEFAULT_LIMITS.to_json(), 24 * GIB, None).gpu_memory_bytes == 24 * GIB


def test_each_slot_offers_its_own_gpu():
    report = NodeReport(
        instance="i",
        machine=MachineFacts(cpus=8.0, memory_bytes=32 * GIB, architecture="x86_64", engine_version="20"),
        disk=DiskFacts(total_bytes=1, free_bytes=1, has_room=True),
        slots=[
            SlotFacts(name="gpu-0", kind=GPU, gpu="GPU-a"),
            SlotFacts(name="gpu-1", kind=GPU, gpu="GPU-b"),
            SlotFacts(name="cpu-0", kind=CPU),
        ],
        gpus=[
            GpuFacts(uuid="GPU-a", name="A", memory_bytes=24 * GIB),
            GpuFacts(uuid="GPU-b", name="B", memory_bytes=11 * GIB),
        ],
        labels={"site": "north"},
        images=[],
    )
    assert [offer.gpu_memory_bytes // GIB for offer in offers_of(report)] == [24, 11, 0]
    assert offer_of(report, "gpu-1", GPU) == offers_of(report)[1]
    # One that the report does not name has the machine, and no memory of any GPU
    unknown = offer_of(report, "gpu-7", GPU)
    assert (unknown.memory_bytes, unknown.gpu_memory_bytes, unknown.labels) == (
        32 * GIB, 0, {"site": "north"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ({}, NodeState.READY),
        ({"has_room": False}, NodeState.NO_ROOM),
        ({"has_room": False, "draining": True}, NodeState.DRAINING),
        ({"draining": True, "silent": True}, NodeState.SILENT),
        ({"draining": True, "silent": True, "left": True}, NodeState.LEFT),
    ],
)
def test_a_node_stands_as_the_gravest_thing_about_it_says(told, state):
    calm = {"left": False, "silent": False, "draining": False, "has_room": True}
    assert node_state(**{**calm, **told}) is state


def test_few_nodes_report_often_and_a_thousand_rarely_enough():
    assert report_seconds(0) == report_seconds(300) == 10.0
    assert report_seconds(450) == 15.0
    assert report_seconds(1000) == report_seconds(100_000) == 20.0
