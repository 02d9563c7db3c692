"""What waits to be announced: in order, when it is due, and never without bound."""

from contracts.messages import SlotKind
from private_api.announcing.backlog import Backlog, Item

A, B, C = (Item(SlotKind.CPU, letter) for letter in "abc")
GPU = Item(SlotKind.GPU, "g")


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def drained(backlog):
    return list(iter(backlog.take, None))


def test_announcements_come_in_their_order():
    backlog = Backlog()
    for item in (A, B, C):
        backlog.put(item)
    assert drained(backlog) == [A, B, C]


def test_a_later_one_comes_when_it_is_due():
    # Given
    clock = Clock()
    backlog = Backlog(clock=clock)
    backlog.put(A, delay_seconds=4.0)
    backlog.put(B, delay_seconds=1.0)
    # Then nothing is due, and it is known when something will be
    assert backlog.take() is None
    assert backlog.seconds_until_due() == 1.0
    assert backlog.waiting() == {}
    # When time passes
    clock.now += 1.0
    assert backlog.waiting() == {SlotKind.CPU: 1}
    assert drained(backlog) == [B]
    assert backlog.seconds_until_due() == 3.0
    clock.now += 3.0
    assert drained(backlog) == [A]
    assert backlog.seconds_until_due() is None


def test_what_has_waited_its_time_does_not_overtake():
    clock = Clock()
    backlog = Backlog(clock=clock)
    backlog.put(A, delay_seconds=1.0)
    backlog.put(B)
    clock.now += 2.0
    assert drained(backlog) == [B, A]


def test_what_was_not_confirmed_comes_first_in_its_old_order():
    backlog = Backlog()
    backlog.put(C)
    backlog.put_back([A, B])
    assert drained(backlog) == [A, B, C]


def test_there_is_room_for_so_many_and_no_more():
    # Given a broker that is away
    backlog = Backlog(most=2)
    assert backlog.put(A)
    assert backlog.put(B, delay_seconds=60.0)
    # Then what does not fit is refused, but never what was sent already
    assert not backlog.put(C)
    assert not backlog.put(C, delay_seconds=1.0)
    backlog.put_back([GPU])
    assert drained(backlog) == [GPU, A]


def test_what_waits_is_counted_by_kind():
    backlog = Backlog()
    for item in (A, GPU, B):
        backlog.put(item)
    assert backlog.waiting() == {SlotKind.CPU: 2, SlotKind.GPU: 1}
    assert backlog.seconds_until_due() == 0.0


def test_what_is_put_apart_comes_one_in_each_gap_and_never_twice():
    # Given three tasks that the slot which heard of them may not run
    clock = Clock()
    backlog = Backlog(clock=clock)
    for item in (A, B, GPU):
        assert backlog.put_apart(item, 0.5)
    # Then one that is there already is not put in again, and all count: their tasks could be claimed now
    assert not backlog.put_apart(A, 0.5)
    assert backlog.waiting() == {SlotKind.CPU: 2, SlotKind.GPU: 1}
    assert backlog.take() is None
    # When gaps pass: one of each kind for each of them
    clock.now += 0.5
    assert drained(backlog) == [A, GPU]
    clock.now += 0.5
    assert drained(backlog) == [B]
    # And what has gone out may come back
    assert backlog.put_apart(A, 0.5)
    assert backlog.seconds_until_due() == 0.5


def test_what_is_put_apart_waits_behind_nothing_else():
    clock = Clock()
    backlog = Backlog(clock=clock)
    backlog.put_apart(A, 0.5)
    backlog.put(B)
    assert drained(backlog) == [B]


def test_what_is_put_apart_finds_no_room_in_a_full_backlog():
    backlog = Backlog(most=1)
    backlog.put(A)
    assert not backlog.put_apart(B, 0.5)
