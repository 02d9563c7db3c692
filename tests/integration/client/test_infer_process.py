"""``infer`` as a process of its own: on a terminal, interrupted, piped, and with much to carry."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from native_api_records import KEY, Fault
from native_api_stub import NativeApiStub

CLIENT_SOURCE = str(Path(__file__).parents[3] / "client" / "src")
# What the shell of whoever runs the tests has set must not decide what they see.
SHELL = {
    "PATH": os.environ["PATH"], "PYTHONPATH": CLIENT_SOURCE, "INFER_KEY": KEY, "TERM": "xterm",
    "INFER_CONFIG_DIR": "/nonexistent",
}  # fmt: skip

# A background shell has its children ignore interrupts; `infer` must hear them here all the same.
INFER = ["env", "--default-signal=INT", sys.executable, "-m", "inference_server_client"]


class Terminal:
    """``infer`` on a terminal of its own; what it shows is gathered in ``shown``."""

    def __init__(self, stub: NativeApiStub, *arguments: str | Path) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*INFER, *map(str, arguments)],
            stdin=slave, stdout=slave, stderr=slave,
            env={**SHELL, "INFER_SERVER": stub.url}, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.shown = ""

    def until(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} not in {self.shown!r}"
            self._read(0.2)

    def ended(self) -> int:
        deadline = time.monotonic() + 60
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.shown
            self._read(0.05)
        self._read(0)
        return self.process.returncode

    def _read(self, seconds: float) -> None:
        if select.select([self.master], [], [], seconds)[0]:
            try:
                self.shown += os.read(self.master, 65536).decode(errors="replace")
            except OSError:
                time.sleep(0.01)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(stub: NativeApiStub) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(*arguments: str | Path) -> Terminal:
        opened.append(Terminal(stub, *arguments))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


def running(stub: NativeApiStub) -> None:
    stub.on_submit = lambda task: stub.update(task, state="running", log=b"begun\n")


def test_ctrl_c_then_cancel(terminal, stub: NativeApiStub, pictures: Path, tmp_path: Path):
    running(stub)
    session = terminal("run", "echo", pictures, "-o", tmp_path / "out")
    session.until("begun")
    session.interrupt()
    session.until("Cancel the task, leave it running, or wait on?")
    session.type("cancel\n")
    assert session.ended() == 6
    assert stub.only_task().state == "canceled"


def test_ctrl_c_then_leave_prints_how_to_come_back(terminal, stub: NativeApiStub, pictures, tmp_path: Path):
    running(stub)
    session = terminal("run", "echo", pictures, "-o", tmp_path / "out")
    session.until("begun")
    session.interrupt()
    session.until("wait on?")
    session.type("leave\n")
    assert session.ended() == 130
    assert f"infer output --wait {stub.only_task().id} -o {tmp_path / 'out'}" in session.shown
    assert stub.only_task().state == "running"


def test_ctrl_c_then_wait_goes_on_to_the_results(
    terminal, stub: NativeApiStub, pictures: Path, tmp_path: Path
):
    running(stub)
    session = terminal("run", "echo", pictures, "-o", tmp_path / "out")
    session.until("begun")
    session.interrupt()
    session.until("wait on?")
    session.type("wait\n")
    stub.succeed(stub.only_task(), {"r": b"1"}, log=b"ended\n")
    assert session.ended() == 0
    assert session.shown.count("| begun") == 1
    assert "| ended" in session.shown
    assert (tmp_path / "out" / "r").exists()


def test_ctrl_c_without_a_terminal_leaves_the_task_running(
    stub: NativeApiStub, pictures: Path, tmp_path: Path
):
    running(stub)
    with subprocess.Popen(
        [*INFER, "run", "echo", pictures, "-o", tmp_path / "out"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**SHELL, "INFER_SERVER": stub.url},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        while "begun" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "goes on without us" in shown
    assert "\x1b" not in shown
    assert stub.only_task().state == "running"


def test_a_reader_that_stops_early_is_no_error(stub: NativeApiStub):
    for number in range(900):
        stub.add_model(f"model-{number}")
    done = subprocess.run(
        f"{sys.executable} -m inference_server_client models list --limit 1000 | head -1",
        shell=True, capture_output=True, text=True,
        env={**SHELL, "INFER_SERVER": stub.url}, timeout=20, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("MODEL")
    assert done.stderr == ""


def test_no_color_is_honoured_on_a_terminal(
    terminal, stub: NativeApiStub, pictures: Path, tmp_path, monkeypatch
):
    monkeypatch.setitem(SHELL, "NO_COLOR", "1")
    session = terminal("list", "--server", "http://127.0.0.1:1", "--retries", "0")
    assert session.ended() == 3
    assert "\x1b[31m" not in session.shown


def test_a_big_upload_and_download_take_little_memory(stub: NativeApiStub, tmp_path: Path):
    # given 256 MB there, under a name that is not compressed, and 128 MB back
    stub.keep_bodies = False
    stub.on_submit = lambda task: stub.succeed(task, {"big.bin": bytes(128 << 20)})
    big = tmp_path / "big"
    big.mkdir()
    with (big / "data.png").open("wb") as stream:
        stream.truncate(256 << 20)
    # Not getrusage: its peak counts what this process had resident when it forked.
    source = (
        "import sys; from inference_server_client.cli.app import main; code = main(sys.argv[1:]);"
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')]);"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, "run", "echo", big, "-o", tmp_path / "out"],
        capture_output=True, text=True, env={**SHELL, "INFER_SERVER": stub.url}, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100 * 1024
    assert stub.seen("POST", "/v1/tasks")[0].body_bytes > 256 << 20
    assert (tmp_path / "out" / "big.bin").stat().st_size == 128 << 20


def test_ctrl_c_during_an_upload_ends_it_and_leaves_nothing_behind(
    stub: NativeApiStub, pictures: Path, tmp_path: Path
):
    # Given a server that takes the head of an upload and then nothing more
    (pictures / "large.png").write_bytes(os.urandom(16 << 20))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    stub.faults.append(Fault("POST /v1/tasks", "stall"))
    process = subprocess.Popen(
        [*INFER, "submit", "echo", pictures],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**SHELL, "INFER_SERVER": stub.url, "TMPDIR": str(scratch)},
    )  # fmt: skip
    try:
        assert stub.stalled.wait(20)
        assert list(scratch.iterdir()) != []
        # When it is interrupted
        process.send_signal(signal.SIGINT)
        out, shown = process.communicate(timeout=20)
    finally:
        process.kill()
    # Then it ends at once, without a second attempt, and its packed files are gone
    assert process.returncode == 130
    assert (out, shown.strip().splitlines()[-1]) == ("", "Interrupted while sending; no task was started.")
    assert "Traceback" not in shown
    assert list(scratch.iterdir()) == []
    assert stub.tasks == {}


def test_login_asks_for_server_and_key_and_shows_no_key(
    terminal, stub: NativeApiStub, tmp_path: Path, monkeypatch
):
    monkeypatch.setitem(SHELL, "INFER_CONFIG_DIR", str(tmp_path))
    monkeypatch.delitem(SHELL, "INFER_KEY")
    session = terminal("login")
    session.until(f"Server [{stub.url}]")
    session.type("\n")
    session.until("Key (not shown)")
    session.type(f"{KEY}\n")
    assert session.ended() == 0, session.shown
    assert KEY not in session.shown
    kept = json.loads((tmp_path / "login.json").read_text())
    assert kept == {"server": stub.url, "key": KEY, "ca_cert": None}
