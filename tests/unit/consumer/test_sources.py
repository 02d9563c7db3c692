"""Where the next task comes from: what a slot does with an announcement, with none, and without a broker."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import pytest

from consumer.outside.broker import Heard, Life
from consumer.outside.errors import CallRefusedError, ServerAwayError
from consumer.outside.listener import Listener
from consumer.slot.sources import Announcements, LongPoll
from contracts.messages import ClaimRequest, Lease
from tests.rig.polling import eventually
from tests.unit.consumer.attempt_bench import Bench
from tests.unit.consumer.fake_server import FakeServer

HEARD = Heard("1" * 32, cast(Life, None), 1)


class Ear:
    """``Listener`` without a broker; notes in order what it is asked."""

    def __init__(self, *announced: Heard) -> None:
        self.is_reachable = True
        self.announced = list(announced)
        self.did: list[str] = []

    def start(self) -> None:
        self.did.append("start")

    def take(self, seconds: float) -> Heard | None:
        self.did.append("take")
        return self.announced.pop(0) if self.announced else None

    def forget(self, _heard: Heard) -> None:
        self.did.append("forget")

    def give_back(self, _heard: Heard) -> None:
        self.did.append("give back")

    def leave(self) -> None:
        self.is_reachable = False

    def close(self) -> None:
        self.did.append("close")


class Asked(FakeServer):
    """Notes how it was asked, and refuses when it is to."""

    def __init__(self, input_zip: bytes) -> None:
        super().__init__(input_zip)
        self.requests: list[ClaimRequest] = []
        self.refusal: Exception | None = None

    def claim(self, request: ClaimRequest) -> Lease | None:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        return super().claim(request)

    def waits(self) -> list[float]:
        return [request.wait_seconds for request in self.requests]


class Slot:
    """A slot's source between an ear and a server of the test."""

    def __init__(self, directory: Path, *announced: Heard) -> None:
        self.bench = Bench(directory)
        self.server = Asked(self.bench.server.input)
        object.__setattr__(self.bench.station, "server", self.server)
        self.ear = Ear(*announced)
        self.source = Announcements(self.bench.station, cast(Listener, self.ear))
        self.ear.did.clear()


def test_an_announcement_leads_to_a_claim_that_does_not_wait(tmp_path: Path) -> None:
    # Given a slot that the server knows
    slot = Slot(tmp_path, HEARD)
    assert slot.source.next_lease() is None
    assert slot.server.requests[0].task_id is None
    assert slot.server.requests[1].task_id == HEARD.task_id
    # Then each claim was answered at once, and the announcement has done its work, though it led to nothing
    assert slot.server.waits() == [0.0, 0.0]
    assert slot.ear.did == ["take", "forget"]


def test_the_claim_of_a_task_settles_its_announcement(tmp_path: Path) -> None:
    slot = Slot(tmp_path, HEARD)
    slot.source.next_lease()
    slot.ear.announced.append(HEARD)
    slot.server.leases.append(slot.bench.lease)
    slot.ear.did.clear()
    assert slot.source.next_lease() == slot.bench.lease
    assert slot.ear.did == ["take", "forget"]


@pytest.mark.parametrize("refusal", [ServerAwayError("away"), CallRefusedError(401, "unauthenticated", "no")])
def test_an_announcement_is_given_back_when_nobody_answers_the_claim(
    tmp_path: Path, refusal: Exception
) -> None:
    slot = Slot(tmp_path)
    slot.source.next_lease()
    slot.ear.did.clear()
    # When the server goes away between two tasks
    slot.ear.announced.append(HEARD)
    slot.server.refusal = refusal
    with pytest.raises(type(refusal)):
        slot.source.next_lease()
    # Then another slot may have it
    assert slot.ear.did == ["take", "give back"]


def test_who_cannot_claim_takes_no_announcement(tmp_path: Path) -> None:
    # Given a server that is away
    slot = Slot(tmp_path, HEARD)
    slot.server.refusal = ServerAwayError("away")
    for _ in range(3):
        with pytest.raises(ServerAwayError):
            slot.source.next_lease()
    assert slot.ear.did == []
    # When it is back
    slot.server.refusal = None
    slot.source.next_lease()
    # Then the slot listens again
    assert slot.ear.did == ["take", "forget"]


def test_a_slot_that_hears_nothing_asks_all_the_same(tmp_path: Path) -> None:
    # Given a task that nobody announced
    slot = Slot(tmp_path)
    slot.source.next_lease()
    slot.server.leases.append(slot.bench.lease)
    # Then it is found without one
    assert slot.source.next_lease() == slot.bench.lease


def test_without_the_broker_a_slot_waits_at_the_claim_and_not_for_long(tmp_path: Path) -> None:
    slot = Slot(tmp_path)
    object.__setattr__(slot.bench.station.settings, "claim_wait_seconds", 30.0)
    slot.source = Announcements(slot.bench.station, cast(Listener, slot.ear))
    slot.ear.is_reachable = False
    slot.server.leases.append(slot.bench.lease)
    slot.ear.did.clear()
    assert slot.source.next_lease() == slot.bench.lease
    assert 3.0 <= slot.server.waits()[0] <= 4.0
    assert slot.ear.did == []


def test_a_slot_that_leaves_asks_for_nothing_more(tmp_path: Path) -> None:
    # Given a slot that is told to leave while it waits
    slot = Slot(tmp_path)
    slot.source.next_lease()
    asked = len(slot.server.requests)
    slot.source.leave()
    slot.server.leases.append(slot.bench.lease)
    # Then it takes no task along
    assert slot.source.next_lease() is None
    assert len(slot.server.requests) == asked


def test_the_long_poll_waits_as_long_as_the_settings_say(tmp_path: Path) -> None:
    slot = Slot(tmp_path)
    assert LongPoll(slot.bench.station).next_lease() is None
    longest = slot.bench.station.settings.claim_wait_seconds
    # A little less: a thousand slots that began together are not to ask together for ever.
    assert 0.75 * longest <= slot.server.waits()[0] <= longest


def test_who_is_not_let_in_any_more_takes_no_further_announcement(tmp_path: Path) -> None:
    # Given a slot whose key has been revoked, and which has heard so of an announcement
    slot = Slot(tmp_path)
    slot.source.next_lease()
    slot.ear.announced += [HEARD, HEARD]
    slot.server.refusal = CallRefusedError(401, "unauthenticated", "no")
    with pytest.raises(CallRefusedError):
        slot.source.next_lease()
    slot.ear.did.clear()
    # When it tries again
    with pytest.raises(CallRefusedError):
        slot.source.next_lease()
    # Then it keeps no announcement from a slot that is let in
    assert slot.ear.did == []


def test_a_slot_that_leaves_has_its_claim_answered_and_takes_what_came_with_the_answer(
    tmp_path: Path,
) -> None:
    # Given a claim that the server holds
    slot = Slot(tmp_path)
    object.__setattr__(slot.bench.station.settings, "claim_wait_seconds", 30.0)
    source = LongPoll(slot.bench.station)
    leases: list[Lease | None] = []
    asking = threading.Thread(target=lambda: leases.append(source.next_lease()))
    asking.start()
    eventually(lambda: slot.server.requests, 5, "it has asked")
    # When a task is given to it in the moment in which it leaves
    slot.server.leases.append(slot.bench.lease)
    source.leave()
    asking.join(5)
    # Then the task is not lost: the slot has it, and can hand it back
    assert leases == [slot.bench.lease]
    assert [(one.node, one.slot) for one in slot.server.withdrawals] == [
        (slot.bench.station.settings.node, slot.bench.station.slot.name)
    ]
    # And it asks for no other
    assert source.next_lease() is None
    assert len(slot.server.requests) == 1


def test_a_slot_that_asks_for_nothing_has_nothing_to_withdraw(tmp_path: Path) -> None:
    slot = Slot(tmp_path)
    LongPoll(slot.bench.station).leave()
    assert slot.server.withdrawals == []


def test_a_server_that_knows_no_withdrawal_keeps_nobody_from_leaving(tmp_path: Path) -> None:
    # Given a server of an earlier release
    slot = Slot(tmp_path)
    object.__setattr__(slot.bench.station.settings, "claim_wait_seconds", 1.0)

    def unknown(_: object) -> bool:
        raise CallRefusedError(404, "not_found", "nothing there")

    object.__setattr__(slot.server, "withdraw", unknown)
    source = LongPoll(slot.bench.station)
    asking = threading.Thread(target=source.next_lease)
    asking.start()
    eventually(lambda: slot.server.requests, 5, "it has asked")
    # When it leaves, then its claim runs out as it would have
    source.leave()
    asking.join(5)
    assert not asking.is_alive()
