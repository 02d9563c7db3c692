"""Using and removing a cached thing, from several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from threading import Event

import pytest

from consumer.node.holds import alone, held
from consumer.outside.errors import AbandonedError

ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from pathlib import Path
from threading import Event
from consumer.node.holds import held
with held(Path(sys.argv[1]), Event()):
    print("held", flush=True)
    time.sleep(60)
"""


def test_many_use_a_thing_and_then_nobody_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "used"
    with held(path, Event()), held(path, Event()), alone(path) as nobody:
        assert not nobody
    with alone(path) as nobody:
        assert nobody


def test_a_killed_process_uses_nothing_any_more(tmp_path: Path) -> None:
    # Given a thing that another process uses
    path = tmp_path / "used"
    user = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert user.stdout is not None
    assert user.stdout.readline() == "held\n"
    with alone(path) as nobody:
        assert not nobody
    # When that is killed
    user.send_signal(signal.SIGKILL)
    user.communicate()
    # Then it may be removed
    with alone(path) as nobody:
        assert nobody


def test_whoever_comes_during_a_removal_waits_and_uses_what_comes_after(tmp_path: Path) -> None:
    # Given a thing that is being removed
    path = tmp_path / "used"
    used = Event()

    def use() -> None:
        with held(path, Event()):
            used.set()

    with alone(path) as nobody:
        assert nobody
        user = threading.Thread(target=use)
        user.start()
        # Then nobody can use it, until its file has gone
        assert not used.wait(0.1)
        path.unlink()
    user.join(10)
    assert used.is_set()
    # And what is held then is a file that others find, not the one that was removed
    with held(path, Event()), alone(path) as nobody:
        assert not nobody


def test_whoever_is_abandoned_does_not_wait(tmp_path: Path) -> None:
    path = tmp_path / "used"
    abandoned = Event()
    abandoned.set()
    with alone(path), pytest.raises(AbandonedError), held(path, abandoned):
        pass


def test_each_use_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "used"
    path.touch()
    os.utime(path, (1, 1))
    with alone(path):
        pass
    assert path.stat().st_mtime == 1
    with held(path, Event()):
        pass
    assert path.stat().st_mtime > 1
