"""Which slots a node has."""

from __future__ import annotations

import pytest

from consumer.node.slots import plan_slots
from contracts.messages import SlotKind

A = "GPU-aaaaaaaa-1111-2222-3333-444444444444"
B = "GPU-bbbbbbbb-1111-2222-3333-444444444444"


@pytest.mark.parametrize(
    ("cpu_slots", "gpus", "cores", "names"),
    [
        (None, (), 1, ["cpu-0"]),
        (None, (), 2, ["cpu-0"]),
        (None, (), 8, ["cpu-0", "cpu-1", "cpu-2", "cpu-3"]),
        (None, (A,), 8, ["cpu-0", "gpu-aaaaaaaa"]),
        (0, (A, B), 8, ["gpu-aaaaaaaa", "gpu-bbbbbbbb"]),
        (2, (), 1, ["cpu-0", "cpu-1"]),
    ],
)
def test_slots_follow_settings_and_machine(
    cpu_slots: int | None, gpus: tuple[str, ...], cores: int, names: list[str]
) -> None:
    assert [slot.name for slot in plan_slots(cpu_slots, gpus, cores)] == names


def test_a_gpu_slot_claims_gpu_tasks_only() -> None:
    cpu, gpu = plan_slots(1, (A,), 4)
    assert (cpu.kind, gpu.kind, gpu.gpu) == (SlotKind.CPU, SlotKind.GPU, A)


def test_names_stay_apart_when_uuids_begin_alike() -> None:
    twins = ("GPU-aaaaaaaa-1", "GPU-aaaaaaaa-2")
    assert len({slot.name for slot in plan_slots(0, twins, 1)}) == 2
