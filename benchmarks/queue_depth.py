"""A hundred thousand queued tasks on PostgreSQL: how long a claim, a list and a look at one task take then.

Asked of the private API, over HTTP, one after the other. The tasks are put into the database directly: their
inputs are never fetched here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import requests

from benchmarks.figures import Figure, percentile
from tests.rig.databases import session
from tests.rig.parts import Part
from tests.rig.server import Server

PARTS = ("postgres",)

_TASKS = 100_000
_OWNERS = 20
_CLAIMS = 300
_ROUNDS = 25
_CLAIM_SECONDS = 0.050
_LIST_SECONDS = 0.100

# As many again have ended: a server that has such a queue has a past too.
_FILL = """
    INSERT INTO tasks (id, owner_id, model_id, version_id, kind, priority, state, attempt, spoiled,
        cancel_requested, queued_at, not_before, token, input_key, input_size, input_sha256, log_size,
        log_base, durations, created_at, finished_at, input_expires_at, output_expires_at, log_expires_at)
    SELECT md5(%(state)s || n), CASE WHEN n %% 2 = 0 THEN %(owner)s ELSE 'owner-' || n %% %(owners)s END,
        v.model_id, v.id, 'gpu', 0, %(state)s, 0, 0, false, n, 0, 0, 'inputs/' || n, 1, repeat('a', 64), 0, 0,
        '{}', n, %(ended)s, %(expires)s, %(expires)s, %(expires)s
    FROM generate_series(1, %(tasks)s) n, model_versions v"""


def measure(server: Server, *, postgres: Part) -> list[Figure]:
    """Fill the database, let it look at what it has, then ask."""
    model = server.admin.register("echo", use_gpu=True)
    user = server.caller("user").key
    _fill(server, postgres)
    with requests.Session() as session_of_user, requests.Session() as admin, requests.Session() as worker:
        for one, key in (
            (session_of_user, user),
            (admin, server.key("admin")),
            (worker, server.key("worker")),
        ):
            one.headers["Authorization"] = f"Bearer {key}"
        lists = [
            (caller, query)
            for caller in (admin, session_of_user)
            for query in (
                "",
                "state=queued",
                "state=failed",
                "state=succeeded",
                f"model={model}",
                f"model={model}&state=succeeded",
                "model=none",
                f"cursor={_TASKS // 2}",
                "created_before=1970-01-01T00:00:01Z",
            )
        ]
        listed = {
            f"{'admin' if caller is admin else 'user'}: {query or 'all'}": [] for caller, query in lists
        }
        for _ in range(_ROUNDS):
            for (caller, query), seconds in zip(lists, listed.values(), strict=True):
                address = f"{server.private_url}/v1/tasks?{query}"
                seconds.append(_timed(lambda: caller.get(address), 200))  # noqa: B023 - Called at once.
        looks = [
            _timed(lambda: admin.get(f"{server.private_url}/v1/tasks/{task}"), 200)  # noqa: B023 - Called at once.
            for task in _spread(postgres)
        ]
        wanted = {"slot": "gpu-0", "kinds": ["gpu"], "wait_seconds": 0}
        address = f"{server.private_url}/v1/leases"
        claims = [
            # No node may hold all of them.
            _timed(lambda: worker.post(address, json=wanted | {"node": f"benchmark-{number % 10}"}), 200)  # noqa: B023 - Called at once.
            for number in range(_CLAIMS)
        ]
    worst = max(listed, key=lambda name: percentile(listed[name], 0.95))
    together = [second for seconds in listed.values() for second in seconds]
    return [
        _figure("claim", claims, _CLAIM_SECONDS),
        _figure("list, all kinds of question together", together, _LIST_SECONDS),
        _figure(f"list, the slowest question ({worst})", listed[worst], _LIST_SECONDS),
        _figure("one queued task with its position", looks, _LIST_SECONDS),
    ]


def _figure(name: str, seconds: list[float], limit: float) -> Figure:
    p50, p95 = percentile(seconds, 0.5), percentile(seconds, 0.95)
    return Figure(
        f"{_TASKS:,} queued: {name}",
        f"p95 {p95 * 1000:.1f} ms (median {p50 * 1000:.1f}, {len(seconds)} times)",
        f"{limit * 1000:.0f} ms",
        p95 / limit,
        "p95 below 1.0",
        p95 < limit,
    )


def _timed(request: Callable[[], requests.Response], status: int) -> float:
    began = time.perf_counter()
    answer = request()
    elapsed = time.perf_counter() - began
    assert answer.status_code == status, answer.text
    return elapsed


def _fill(server: Server, postgres: Part) -> None:
    with session(postgres.url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM api_keys WHERE role = 'user'")
        shared = {"owner": cursor.fetchone()[0], "owners": _OWNERS, "tasks": _TASKS}
        for state, ended, expires in (("succeeded", 1, 4_000_000_000_000), ("queued", None, None)):
            cursor.execute(_FILL, {**shared, "state": state, "ended": ended, "expires": expires})
        # The server's own housekeeping would come to this within a minute.
        cursor.execute("VACUUM ANALYZE")
    assert server.admin.get("/v1/tasks", params={"limit": 1}).json()["items"]


def _spread(postgres: Part) -> list[str]:
    """Tasks from the first to the last of the queue."""
    with session(postgres.url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM tasks WHERE state = 'queued' AND seq %% %s = 0 ORDER BY seq", [_TASKS // 200]
        )
        return [row[0] for row in cursor.fetchall()]
