"""A stream of small tasks while processes are killed one after the other: all arrive, each once."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable

import requests

from tests.rig.api import Api, Task
from tests.rig.polling import PATIENCE
from tests.rig.server import Server
from tests.rig.zips import zip_of

LEAST_TASKS, LEAST_KILLS = 60, 6
SECONDS_BETWEEN_KILLS, SECONDS_BETWEEN_TASKS = 2.0, 0.1


def test_none_is_lost_and_none_is_doubled(server: Server, user: Api, model: Callable[[str], str]) -> None:
    # Given somebody who kills a process every other second
    echo = model("echo")
    over = threading.Event()
    kills: list[str] = []
    killer = threading.Thread(target=kill_in_turn, args=(server, over, kills))
    killer.start()
    # When many tasks are sent, each until it is accepted
    accepted: list[Task] = []
    try:
        while len(accepted) < LEAST_TASKS or len(kills) < LEAST_KILLS:
            accepted.append(send(user, echo, len(accepted)))
            # The pace of a sender, so that the kills fall among the tasks.
            over.wait(SECONDS_BETWEEN_TASKS)
    finally:
        over.set()
        killer.join(30 * PATIENCE)
    server.wait_until_ready()
    # Then all of them succeed, with their own bytes
    assert len({task["id"] for task in accepted}) == len(accepted)
    for number, task in enumerate(accepted):
        ended = user.ended(task, seconds=90)
        assert ended["state"] == "succeeded", ended
        assert user.output(ended) == {"number": b"%d" % number}
    # And no other task of the kind exists
    listed = user.get("/v1/tasks", params={"model": echo, "limit": 1000}).json()["items"]
    mine = {task["id"] for task in listed if task["created_at"] >= accepted[0]["created_at"]}
    assert mine == {task["id"] for task in accepted}


def send(user: Api, model: str, number: int) -> Task:
    """Send until accepted, as a client that will not give up."""
    body, key = zip_of({"number": b"%d" % number}), {"Idempotency-Key": f"stream {number} {os.getpid()}"}
    deadline = time.monotonic() + 60 * PATIENCE
    while True:
        try:
            answer = user.post(
                "/v1/tasks", params={"model_human_readable_id": model}, data=body, headers=key, timeout=20
            )
            if answer.status_code == 202:
                task: Task = answer.json()
                return task
            assert answer.json()["retryable"] is True, answer.text
        except requests.RequestException:
            pass
        assert time.monotonic() < deadline, f"task {number} was never accepted"
        time.sleep(0.1)


def kill_in_turn(server: Server, over: threading.Event, kills: list[str]) -> None:
    """Kill a part of the server, and see that it runs again, until ``over``."""

    def whole(name: str) -> None:
        service = {"private_api": server.private_api, "public_api": server.public_api}.get(
            name, server.consumer
        )
        service.kill()
        service.start()
        if name != "consumer":
            # Others are to find it alive for a while before the next is killed.
            server.wait_until_ready()

    def a_slot() -> None:
        for pid in server.consumer.processes()[1:2]:
            os.kill(pid, signal.SIGKILL)

    turns = itertools.cycle(
        [
            ("slot", a_slot),
            ("private_api", lambda: whole("private_api")),
            ("consumer", lambda: whole("consumer")),
            ("public_api", lambda: whole("public_api")),
        ]
    )
    for name, kill in turns:
        if over.wait(SECONDS_BETWEEN_KILLS):
            return
        kill()
        kills.append(name)
