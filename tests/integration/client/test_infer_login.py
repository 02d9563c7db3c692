"""``infer login``, ``logout`` and ``whoami``: what is kept, who may read it, and when it counts."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from inference_server_client.cli.app import main
from native_api_records import KEY
from native_api_stub import NativeApiStub
from test_infer_process import CLIENT_SOURCE


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config" / "infer"


@pytest.fixture
def login_file(config: Path) -> Path:
    return config / "login.json"


def infer(config: Path, *arguments: str | Path, **environment: str) -> int:
    return main([str(a) for a in arguments], {"INFER_CONFIG_DIR": str(config), **environment})


def piped(config: Path, text: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command as a process, with ``text`` on its standard input."""
    return subprocess.run(
        [sys.executable, "-m", "inference_server_client", *map(str, arguments)],
        input=text,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": CLIENT_SOURCE, "INFER_CONFIG_DIR": str(config)},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "anna.key"
    path.write_text(f"{KEY}\n")
    return path


def test_after_login_no_command_needs_to_be_told(
    stub: NativeApiStub, config: Path, login_file: Path, key_file: Path, capsys
):
    # When somebody logs in
    assert infer(config, "login", stub.url, "--key-file", key_file) == 0
    said = "".join(capsys.readouterr())
    # Then the key is kept where only they may read it, and is not shown
    assert f"Logged in to {stub.url} as anna (user)" in said
    assert KEY not in said
    assert stat.S_IMODE(login_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.stat().st_mode) == 0o700
    assert [path.name for path in config.iterdir()] == ["login.json"]
    # And other commands find server and key there
    assert infer(config, "models", "list") == 0
    assert infer(config, "whoami", "--json") == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (document["server"], document["key_from"]) == (stub.url, "infer login")
    assert document["key"]["name"] == "anna"
    # Until they log out
    assert infer(config, "logout", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"removed": str(login_file)}
    assert not login_file.exists()
    assert infer(config, "whoami", INFER_SERVER=stub.url) == 4
    assert infer(config, "logout") == 0
    assert "There was no login" in capsys.readouterr().err


def test_a_key_comes_from_standard_input_where_there_is_no_terminal(
    stub: NativeApiStub, config: Path, login_file: Path
):
    done = piped(config, f"{KEY}\n", "login", "--url", stub.url)
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr
    assert json.loads(login_file.read_text())["key"] == KEY
    login_file.unlink()
    assert piped(config, KEY, "login", stub.url, "--key-file", "-").returncode == 0
    nothing = piped(config, "", "login", stub.url)
    assert nothing.returncode == 2
    assert "There is no key" in nothing.stderr


def test_a_key_that_the_server_refuses_is_not_kept(
    stub: NativeApiStub, config: Path, login_file: Path, key_file: Path
):
    assert infer(config, "login", stub.url, "--key-file", key_file) == 0
    before = login_file.read_text()
    key_file.write_text("another-key")
    assert infer(config, "login", stub.url, "--key-file", key_file) == 4
    assert infer(config, "login", "http://127.0.0.1:1", "--key-file", key_file, "--retries", "0") == 3
    assert login_file.read_text() == before


def test_options_win_over_the_environment_that_wins_over_the_login(
    stub: NativeApiStub, config: Path, key_file: Path, tmp_path: Path, capsys
):
    assert infer(config, "login", stub.url, "--key-file", key_file) == 0
    wrong = tmp_path / "wrong.key"
    wrong.write_text("wrong")
    assert infer(config, "whoami", INFER_KEY="wrong") == 4
    assert infer(config, "whoami", INFER_KEY_FILE=str(wrong)) == 4
    assert infer(config, "whoami", "--key-file", wrong) == 4
    assert infer(config, "whoami", "--key-file", key_file, INFER_KEY="wrong") == 0
    assert infer(config, "whoami", INFER_SERVER="http://127.0.0.1:1") == 3
    assert infer(config, "whoami", "--server", stub.url, INFER_SERVER="http://127.0.0.1:1") == 0
    capsys.readouterr()
    assert infer(config, "login", stub.url, "--key-file", key_file, INFER_KEY="wrong") == 0
    assert "INFER_KEY is set and wins over the login." in capsys.readouterr().err


def test_the_kept_key_is_never_sent_to_another_server(stub: NativeApiStub, config: Path, key_file: Path):
    assert infer(config, "login", stub.url, "--key-file", key_file) == 0
    with NativeApiStub() as other:
        assert infer(config, "models", "list", "--server", other.url) == 4
        assert [request.headers.get("Authorization") for request in other.requests] == [None]


def test_a_login_that_others_may_read_or_that_is_damaged_is_told(
    stub: NativeApiStub, config: Path, login_file: Path, key_file: Path, capsys
):
    assert infer(config, "login", stub.url, "--key-file", key_file) == 0
    login_file.chmod(0o644)
    capsys.readouterr()
    assert infer(config, "whoami") == 0
    assert f"chmod 600 {login_file}" in capsys.readouterr().err
    for damage in ("", "[]", '{"server": 1}', '{"server": "ftp://x", "key": "k"}'):
        login_file.write_text(damage)
        assert infer(config, "models", "list") == 2
        assert "run: infer login" in capsys.readouterr().err
    assert infer(config, "login", stub.url, "--key-file", key_file) == 0, (
        "a damaged login does not prevent one"
    )
