"""The rig itself: a server that leaves something behind must not pass for one that is clean."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.conftest import left_behind
from tests.rig import remains
from tests.rig.server import Server


def test_what_a_killed_consumer_leaves_is_noticed_and_swept(tmp_path: Path) -> None:
    # Given a server whose consumer dies with a model running, and does not come back
    server = Server(tmp_path / "state", slots=1)
    try:
        server.start()
        caller = server.admin
        caller.running(caller.submit(caller.register("sleeps-for-ever")))
        server.consumer.kill()
        seen = left_behind(server)
    finally:
        # When
        left = server.stop()
    # Then container, holder, volumes and directory are told, and then gone
    assert any(name.startswith("inferenceserver-") for name in seen), seen
    assert sum(name.startswith("container ") for name in left) == 2, left
    assert sum(name.startswith("volume ") for name in left) >= 3, left
    assert sum(name.startswith("directory ") for name in left) >= 1, left
    assert remains.containers(server.installation) == []
    assert remains.volumes(server.installation) == []
