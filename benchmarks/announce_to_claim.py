"""From an announcement to its claim, asked for and answered, against a bare message; and the weight of many.

Publisher, listener and claim are those of the services; the bare message goes through the same queue, from
one of pika's connections to another. They take turns in one process and share its interpreter: between
two processes each is quicker.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Queue

import docker
import pika

from benchmarks.figures import Figure
from consumer.outside.listener import Listener
from consumer.outside.server import Server as Calls
from contracts.announcements import Announcement, encode, queue_arguments, queue_name
from contracts.messages import ClaimRequest, SlotKind
from private_api.announcing.backlog import Backlog, Item
from private_api.announcing.publisher import Publisher
from private_api.crashpoints import Crashpoints
from tests.rig.brokers import TestBroker
from tests.rig.parts import Part
from tests.rig.polling import eventually
from tests.rig.server import Server
from tests.rig.zips import zip_of

PARTS = ("rabbitmq", "postgres")

_ROUNDS = 4
_RUNS = 50
_MANY = 100_000
_MEMORY_LIMIT = 400_000_000
_KIND = SlotKind.GPU
_QUEUE = queue_name(_KIND)


def measure(server: Server, *, rabbitmq: Part, postgres: Part) -> list[Figure]:  # noqa: ARG001 - The server has it.
    """The way of one announcement, then the weight of many."""
    # A virtual host of our own: the server announces the same tasks in its own, where nobody listens.
    broker = TestBroker(rabbitmq)
    with broker.channel() as channel:
        channel.queue_declare(_QUEUE, durable=True, arguments=queue_arguments())
    task_ids = _queued(server, (_ROUNDS + 1) * _RUNS)
    ours: list[tuple[float, float]] = []
    bare: list[float] = []
    for number in range(_ROUNDS + 1):
        some = task_ids[number * _RUNS : (number + 1) * _RUNS]
        bare += _bare(broker)
        ours += _announced(server, broker, some)
    # The first round warms up.
    asked, leased = zip(*ours[_RUNS:], strict=True)
    return [
        _promptness("an announcement, until a slot asks for its claim", asked, bare[_RUNS:]),
        _promptness("the same, until its lease on PostgreSQL is in hand", leased, bare[_RUNS:]),
        _weight(broker),
    ]


def _promptness(name: str, ours: Sequence[float], bare: Sequence[float]) -> Figure:
    ratio = statistics.median(ours) / statistics.median(bare)
    theirs = f"a message of pika, published to delivered: {_spread(bare)}"
    return Figure(name, _spread(ours), theirs, ratio, "at most 4.0", ratio <= 4.0)


def _queued(server: Server, count: int) -> list[str]:
    model, body = server.admin.register("echo", use_gpu=True), zip_of({"in.txt": b"in"})
    return [str(server.admin.submit(model, body)["id"]) for _ in range(count)]


def _announced(server: Server, broker: TestBroker, task_ids: list[str]) -> list[tuple[float, float]]:
    """Seconds from the announcement of each task until its claim is asked for, and until it is answered."""
    calls = Calls(server.private_url, server.key("worker"))
    claims: Queue[tuple[float, float]] = Queue()
    listener = Listener(broker.worker_address, _QUEUE, "benchmark")
    listener.start()
    eventually(lambda: listener.is_reachable, 20, "the listener hears")

    def slot() -> None:
        for _ in task_ids:
            heard = listener.take(60)
            assert heard is not None
            asked = time.perf_counter()
            wanted = ClaimRequest(
                node="benchmark", slot="gpu-0", kinds=[_KIND], wait_seconds=0.0, task_id=heard.task_id
            )
            assert calls.claim(wanted) is not None
            claims.put((asked, time.perf_counter()))
            listener.forget(heard)

    thread = threading.Thread(target=slot, daemon=True)
    thread.start()
    seconds = []
    with _publisher(broker) as announce, broker.channel() as channel:
        for task_id in task_ids:
            _wait_for_consumer(channel)
            began = time.perf_counter()
            announce(task_id)
            asked, answered = claims.get(timeout=30)
            seconds.append((asked - began, answered - began))
    thread.join()
    listener.close()
    return seconds


def _bare(broker: TestBroker) -> list[float]:
    """Seconds from the publication of each message until it is delivered."""
    arrived: Queue[float] = Queue()
    receiver = pika.BlockingConnection(pika.URLParameters(broker.url))
    receiving = receiver.channel()
    receiving.basic_qos(prefetch_count=1)

    def receive(_channel: object, method: pika.spec.Basic.Deliver, *_: object) -> None:
        arrived.put(time.perf_counter())
        receiving.basic_ack(method.delivery_tag)

    receiving.basic_consume(_QUEUE, receive)
    thread = threading.Thread(target=receiving.start_consuming, daemon=True)
    thread.start()
    seconds = []
    body = encode(Announcement(task_id="0" * 32))
    with broker.channel() as channel:
        for _ in range(_RUNS):
            _wait_for_consumer(channel)
            began = time.perf_counter()
            channel.basic_publish("", _QUEUE, body, pika.BasicProperties(delivery_mode=2))
            seconds.append(arrived.get(timeout=30) - began)
    receiver.add_callback_threadsafe(receiving.stop_consuming)
    thread.join()
    receiver.close()
    return seconds


def _wait_for_consumer(channel: pika.adapters.blocking_connection.BlockingChannel) -> None:
    """Until somebody listens, and all that came before is settled."""

    def look() -> bool:
        found = channel.queue_declare(_QUEUE, passive=True).method
        return found.consumer_count == 1 and found.message_count == 0

    eventually(look, 20, "somebody listens", every=0.005)


@contextmanager
def _publisher(broker: TestBroker) -> Iterator[Callable[[str], None]]:
    backlog, stopping, ready = Backlog(_MANY), threading.Event(), threading.Event()
    publisher = Publisher(broker.address, backlog, Crashpoints(), on_ready=ready.set, stopping=stopping)
    publisher.start()
    assert ready.wait(20)

    def announce(task_id: str) -> None:
        backlog.put(Item(_KIND, task_id))
        publisher.wake()

    yield announce
    stopping.set()
    publisher.leave(5)


def _weight(broker: TestBroker) -> Figure:
    before = _memory_bytes(broker.part)
    began = time.perf_counter()
    with _publisher(broker) as announce:
        for number in range(_MANY):
            announce(f"{number:032x}")
        eventually(lambda: broker.ready(_QUEUE) == _MANY, 300, "all are announced", every=0.5)
    rate = _MANY / (time.perf_counter() - began)
    after = _memory_bytes(broker.part)
    return Figure(
        f"memory of the broker with {_MANY:,} announcements",
        f"{after / 1e6:.0f} MB ({before / 1e6:.0f} MB before; published at {rate:.0f}/s)",
        "400 MB",
        after / _MEMORY_LIMIT,
        "below 1.0",
        after < _MEMORY_LIMIT,
    )


def _memory_bytes(part: Part) -> int:
    """What the container's processes hold, without the pages of files that the kernel keeps for them."""
    client = docker.from_env()
    try:
        used = client.containers.get(part.container_id).stats(stream=False)["memory_stats"]
    finally:
        client.close()
    cached = used["stats"].get("total_inactive_file", used["stats"].get("inactive_file", 0))
    return int(used["usage"]) - int(cached)


def _spread(seconds: Sequence[float]) -> str:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"{middle * 1000:.2f} ms ({low * 1000:.2f} to {high * 1000:.2f})"
