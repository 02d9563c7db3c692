"""Whom a look at the queue wakes: as many as there are tasks, of those that these fit, in their order."""

from __future__ import annotations

import socket

import pytest

from contracts.messages import SlotKind
from private_api.lookout import Due, Waiter, _hung_up, call
from private_api.store.next_task import Slot


def waiter(name: str, *models: str, known: bool = True) -> Waiter:
    made = Waiter([SlotKind.CPU], "key", "node", name, None)
    if known:
        made.slot = Slot(key_id="key", node="node", models=frozenset(models) if models else None)
    return made


def due(count: int, model: str = "lung") -> Due:
    return Due(count=count, fits=lambda slot: slot.models is None or model in slot.models)


@pytest.mark.parametrize(
    ("waiting", "count", "called"),
    [
        ([], 3, []),
        ([waiter("a"), waiter("b")], 1, ["a"]),
        ([waiter("a"), waiter("b")], 5, ["a", "b"]),
        ([waiter("a", "liver"), waiter("b")], 1, ["b"]),
        ([waiter("a", "liver"), waiter("b", "liver", "lung")], 2, ["b"]),
        # Who has only just come looks for itself.
        ([waiter("a", known=False), waiter("b")], 1, ["b"]),
    ],
)
def test_as_many_are_called_as_there_are_tasks_for(
    waiting: list[Waiter], count: int, called: list[str]
) -> None:
    call(due(count), waiting)
    assert [one.name for one in waiting if one.called] == called


def test_who_is_on_its_way_already_needs_no_second_call() -> None:
    # Given a task for which one has been called, and has not claimed yet
    first, second = waiter("a"), waiter("b")
    call(due(1), [first, second])
    # When the queue is looked at again, then nobody else is troubled for it
    call(due(1), [first, second])
    assert not second.called
    call(due(2), [first, second])
    assert second.called


def test_who_has_hung_up_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    kept_ours, kept_theirs = socket.socketpair()
    gone, there, none = waiter("gone"), waiter("there"), waiter("none")
    gone.sock, there.sock = ours, kept_ours
    theirs.close()
    assert _hung_up([gone, there, none]) == [gone]
    for sock in (ours, kept_ours, kept_theirs):
        sock.close()
