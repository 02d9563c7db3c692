"""Places: taken, given back, and never all held by senders whose body has not come."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from gunicorn.config import Config

from contracts.problems import ProblemCode
from public_api import admission
from public_api import relay as relay_room
from public_api.admission import Admission
from public_api.relay import Passage, Relay
from public_api.routes import Kind
from public_api.settings import Settings
from serving.problems import ProblemError
from serving.wire import WireParser


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_PATIENCE_SECONDS", dict.fromkeys(Kind, 0.0), raising=False)


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_has_its_number_of_places(kind: Kind) -> None:
    # given all of them taken
    places = Admission(bulk=2, wait=2, control=2)
    leave = [places.enter(kind) for _ in range(2)]

    # when / then
    with pytest.raises(ProblemError) as caught:
        places.enter(kind)
    assert caught.value.code is ProblemCode.UNAVAILABLE
    assert caught.value.retry_after == 2

    # and one that is given back twice is one place
    leave[0]()
    leave[0]()
    places.enter(kind)
    with pytest.raises(ProblemError):
        places.enter(kind)


def test_senders_of_small_bodies_hold_a_part_of_the_places_at_most() -> None:
    # given
    places = Admission(bulk=1, wait=1, control=8)

    # when
    with ExitStack() as senders:
        for _ in range(6):
            senders.enter_context(places.receiving(Kind.CONTROL))

        # then
        with pytest.raises(ProblemError):
            senders.enter_context(places.receiving(Kind.CONTROL))
    with places.receiving(Kind.CONTROL):
        pass


@pytest.fixture
def stalled() -> Iterator[dict[str, Any]]:
    """The environment of a request whose body does not come."""
    client, server = socket.socketpair()
    with client, server:
        server.settimeout(3)
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n")
        message = next(WireParser(Config(), server, ("127.0.0.1", 1), 3))
        yield {"wsgi.input": message.body, "CONTENT_LENGTH": "50", "REQUEST_METHOD": "POST"}


@pytest.mark.parametrize("kind", [Kind.CONTROL, Kind.BULK])
def test_a_small_body_is_awaited_for_a_bounded_time_within_a_place(
    stalled: dict[str, Any], kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given one place
    monkeypatch.setattr(relay_room, "_SMALL_BODY_SECONDS", 0.1, raising=False)
    settings = Settings(private_api_url="http://127.0.0.1:1", bulk_transfers=1, control_calls=1)
    relay = Relay(settings)
    passage = Passage(method="POST", target="/v1/keys", query="", kind=kind)
    seen: list[str] = []
    read = relay_room.read_small_body

    def observed(*arguments: Any, **options: Any) -> bytes:
        with pytest.raises(ProblemError):
            relay._admission.enter(kind)
        seen.append("no other place")
        assert options["seconds"] == 0.1
        return read(*arguments, **options)

    monkeypatch.setattr(relay_room, "read_small_body", observed)

    # when
    with pytest.raises(ProblemError) as caught:
        relay.ask(stalled, passage)

    # then
    assert caught.value.code is ProblemCode.REQUEST_TIMED_OUT
    assert seen == ["no other place"]
    relay._admission.enter(kind)()
