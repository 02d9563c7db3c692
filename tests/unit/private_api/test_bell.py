import threading
import time

from private_api.bell import Bell


def test_a_ring_before_the_wait_is_heard():
    bell = Bell()
    with bell.listening("a") as listener:
        bell.ring("a")
        started = time.monotonic()
        listener.wait(60)
    assert time.monotonic() - started < 30


def test_a_ring_for_another_topic_is_not_heard():
    bell = Bell()
    with bell.listening("a") as listener:
        bell.ring("b")
        assert not listener._rung.is_set()


def test_everybody_hears_a_ring():
    bell = Bell()
    heard = []
    ready = threading.Barrier(4)

    def wait():
        with bell.listening("a") as listener:
            ready.wait()
            listener.wait(60)
            heard.append(1)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    ready.wait()
    bell.ring("a")
    for thread in threads:
        thread.join(5)
    assert len(heard) == 3


def test_nothing_is_kept_of_those_who_left():
    bell = Bell()
    with bell.listening("a", "b"):
        pass
    assert not bell._listeners
