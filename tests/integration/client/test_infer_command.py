"""The ``infer`` command from arguments to exit status, against a server that answers as the real one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from native_api_records import KEY, Fault, zip_of
from native_api_stub import NativeApiStub

Infer = Callable[..., int]


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_run_sends_shows_and_unpacks(
    infer: Infer, stub: NativeApiStub, pictures: Path, tmp_path: Path, capsys
):
    stub.on_submit = lambda task: stub.succeed(task, {"deep/r.csv": b"1,2\n"}, log=b"hello\nbye")
    assert infer("run", "echo", pictures, "-o", tmp_path / "out") == 0
    shown = capsys.readouterr()
    assert (tmp_path / "out" / "deep" / "r.csv").read_bytes() == b"1,2\n"
    assert shown.out == ""
    assert "  | hello\n  | bye\n" in shown.err
    assert f"The results are in {tmp_path / 'out'} (1 file)." in shown.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["deep"]


def test_run_with_json_prints_json_lines_only(
    infer: Infer, stub: NativeApiStub, pictures: Path, tmp_path, capsys
):
    stub.on_submit = lambda task: stub.succeed(task, {"r": b"1"}, log=b"\x1b[31mred\x1b[0m\n")
    (pictures / "link").symlink_to("/etc/passwd")
    assert infer("run", "echo", pictures, "-o", tmp_path / "out", "--json") == 0
    events = json_lines(capsys.readouterr().out)
    names = [event["event"] for event in events]
    assert names[0] == "skipped"
    assert names[-1] == "finished"
    assert {"submitted", "changed", "log"} <= set(names)
    assert events[-1]["files"] == [str(tmp_path / "out" / "r")]
    assert next(event for event in events if event["event"] == "log")["line"] == "red"


def test_a_ready_zip_is_sent_as_it_is(infer: Infer, stub: NativeApiStub, tmp_path: Path):
    ready = tmp_path / "task.zip"
    ready.write_bytes(zip_of({"x": b"y"}))
    assert infer("run", "echo", ready, "-o", tmp_path / "out") == 0
    assert stub.only_task().input == ready.read_bytes()


def test_results_overwrite_only_when_told(
    infer: Infer, stub: NativeApiStub, pictures: Path, tmp_path, capsys
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "out.txt").write_text("mine")
    assert infer("run", "echo", pictures, "-o", out) == 8
    assert (out / "out.txt").read_text() == "mine"
    assert f"infer output {stub.only_task().id} -o" in capsys.readouterr().err
    assert infer("output", stub.only_task().id, "-o", out, "--force") == 0
    assert (out / "out.txt").read_text() == "done\n"


def test_a_failed_task_exits_1_with_the_reason(
    infer: Infer, stub: NativeApiStub, pictures: Path, tmp_path, capsys
):
    stub.on_submit = lambda task: stub.update(
        task,
        state="failed",
        reason_code="out_of_memory",
        reason="The model used more than 4 GiB.",
        log=b"Killed\n",
    )
    assert infer("run", "echo", pictures, "-o", tmp_path / "out") == 1
    shown = capsys.readouterr().err
    assert "Killed" in shown
    assert "failed (out_of_memory): The model used more than 4 GiB." in shown
    assert not (tmp_path / "out").exists()
    assert infer("output", stub.only_task().id, "-o", tmp_path / "out", "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["task"]["reason_code"] == "out_of_memory"


def test_unknown_or_disabled_models_are_found_out_before_anything_is_sent(
    infer: Infer, stub: NativeApiStub, pictures: Path, tmp_path: Path
):
    stub.add_model("off", enabled=False)
    assert infer("run", "nobody", pictures, "-o", tmp_path / "out") == 5
    assert infer("run", "off", pictures, "-o", tmp_path / "out") == 2
    assert not stub.seen("POST", "/v1/tasks")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["status", "f" * 32], 5),
        (["frobnicate"], 2),
        (["run", "echo"], 2),
        (["models", "add", "x", "y", "--memory", "much"], 2),
        (["models", "update", "echo"], 2),
        (["models", "add", "echo", "busybox"], 7),
        (["list", "--key-file", "/nonexistent"], 2),
        (["list", "--server", "localhost:8080"], 2),
        (["list", "--ca-cert", "/nonexistent"], 2),
        (["list", "--server", "http://127.0.0.1:1", "--retries", "0"], 3),
        (["list", "--server", "http://nowhere.invalid", "--retries", "0"], 3),
        (["output", "x"], 2),
    ],
)
def test_errors_are_one_sentence_and_an_exit_status(infer: Infer, capsys, arguments: list[str], code: int):
    assert infer(*arguments) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.strip()
    assert "Traceback" not in shown.err
    assert infer(*arguments, "--json") == code
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == code


def test_a_refused_key_exits_4_and_is_never_shown(infer: Infer, stub: NativeApiStub, capsys):
    assert infer("list", INFER_KEY="wrong-key") == 4
    assert infer("list", "--server", stub.url.replace("//", "//user:secret-in-url@")) == 4
    assert infer("list", "--server", "http://user:secret-in-url@127.0.0.1:1", "--retries", "0") == 3
    assert infer("list", "--server", "ftp://user:secret-in-url@x") == 2
    shown = "".join(capsys.readouterr())
    assert "wrong-key" not in shown
    assert "secret-in-url" not in shown


def test_where_the_key_comes_from(infer: Infer, stub: NativeApiStub, tmp_path: Path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(KEY + "\n")
    bad.write_text("bad\n")
    assert infer("--key-file", good, "list", INFER_KEY="bad") == 0
    assert infer("--key-file", bad, "list", "--key-file", good) == 0
    assert infer("list", INFER_KEY="", INFER_KEY_FILE=str(good)) == 0
    assert infer("list", INFER_SERVER=stub.url.replace("//", f"//user:{KEY}@"), INFER_KEY="bad") == 0
    assert infer("list", INFER_KEY="") == 4


def test_an_internal_mistake_is_a_sentence_too(infer: Infer, stub: NativeApiStub, capsys, monkeypatch):
    monkeypatch.setattr("inference_server_client.tasks.read_page", lambda *_: 1 / 0)
    assert infer("list") == 70
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown
    assert "Traceback" not in shown


def test_submit_status_output_and_the_rest(
    infer: Infer, stub: NativeApiStub, pictures: Path, tmp_path, capsys
):
    assert infer("submit", "echo", pictures) == 0
    task_id = capsys.readouterr().out.strip()
    assert task_id == stub.only_task().id
    assert infer("status", task_id) == 0
    assert "succeeded" in capsys.readouterr().out
    assert infer("status", "--wait", task_id, "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"] == "succeeded"
    assert infer("output", task_id, "--zip", tmp_path / "r.zip", "--json") == 0
    assert json.loads(capsys.readouterr().out)["zip"] == str(tmp_path / "r.zip")
    assert (tmp_path / "r.zip").read_bytes() == stub.only_task().output
    assert infer("output", "--wait", task_id, "-o", tmp_path / "r", "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == [str(tmp_path / "r" / "out.txt")]
    assert infer("retry", task_id) == 0
    again = capsys.readouterr().out.strip()
    assert infer("list", "--limit", "1", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [item["id"] for item in listed["items"]] == [task_id]
    assert infer("list", "--cursor", listed["next_cursor"]) == 0
    assert again in capsys.readouterr().out
    assert infer("delete", task_id, again, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": [task_id, again]}
    assert not stub.tasks


def test_cancel_and_the_exit_status_of_waiting_for_it(
    infer: Infer, stub: NativeApiStub, pictures, tmp_path, capsys
):
    stub.on_submit = lambda task: None
    assert infer("submit", "echo", pictures) == 0
    task_id = stub.only_task().id
    assert infer("status", "--wait", "--timeout", "1s", task_id) == 9
    assert infer("output", task_id, "-o", tmp_path / "r") == 7
    assert "infer status --wait" in capsys.readouterr().err
    assert infer("cancel", task_id) == 0
    assert infer("status", "--wait", task_id) == 6
    assert infer("cancel", task_id) == 7


def test_logs_are_safe_for_a_terminal_unless_raw(
    infer: Infer, stub: NativeApiStub, pictures: Path, capfdbinary
):
    raw = b"\x1b]0;title\x07\x1b[31mred\x1b[0m \xff\x08\r\n50%\r100%\nlast \xe2\x80\xae"
    stub.on_submit = lambda task: stub.succeed(task, {"a": b""}, log=raw)
    infer("submit", "echo", pictures)
    task_id = stub.only_task().id
    capfdbinary.readouterr()
    assert infer("logs", "-f", task_id) == 0
    assert capfdbinary.readouterr().out.decode() == "red \ufffd\\x08\n50%\n100%\nlast \\u202e\n"
    assert infer("logs", "--raw", task_id) == 0
    assert capfdbinary.readouterr().out == raw
    assert infer("logs", "--json", task_id) == 0
    lines = json_lines(capfdbinary.readouterr().out.decode())
    assert [line["line"] for line in lines] == ["red \ufffd\\x08", "50%", "100%", "last \\u202e"]


def test_names_and_reasons_of_strangers_are_made_safe(
    infer: Infer, stub: NativeApiStub, pictures, tmp_path, capsys
):
    stub.add_model("evil", description="\x1b[2Jgone\x07")
    stub.on_submit = lambda task: stub.succeed(task, {"a\x1b[2Jb": b"x"})
    infer("models", "list")
    infer("models", "show", "evil")
    infer("run", "echo", pictures, "-o", tmp_path / "out")
    stub.faults.append(
        Fault("GET /v1/models", "403", body={"detail": "no\x1b[2J\x9b1m", "code": "forbidden"})
    )
    infer("models", "list")
    shown = "".join(capsys.readouterr())
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert (tmp_path / "out" / "a\x1b[2Jb").exists()


def test_models_are_added_with_human_quantities(infer: Infer, stub: NativeApiStub, pictures: Path, capsys):
    code = infer(
        "models", "add", "digits", "digits:1", "--content", pictures, "--gpu", "--memory", "4g",
        "--time", "30m",
        "--profile", "compatible", "--no-network", "--json",
    )  # fmt: skip
    assert code == 0
    model = json.loads(capsys.readouterr().out)
    assert model["content"]["size_bytes"] > 0
    names = ("use_gpu", "memory_bytes", "time_seconds", "profile", "network")
    assert {name: model[name] for name in names} == {
        "use_gpu": "true", "memory_bytes": str(4 << 30), "time_seconds": "1800.0", "profile": "compatible",
        "network": "false",
    }  # fmt: skip
    assert infer("models", "update", "digits", "--image", "digits:2", "--disable", "--json") == 0
    changed = json.loads(capsys.readouterr().out)
    assert (changed["container_tag"], changed["enabled"]) == ("digits:2", False)
    assert infer("models", "show", "digits") == 0
    assert "digits:2" in capsys.readouterr().out
    assert infer("models", "rm", "digits") == 0
    assert "digits" not in stub.models


def test_a_new_key_is_printed_once_or_kept_in_a_file(
    infer: Infer, stub: NativeApiStub, tmp_path: Path, capsys
):
    assert infer("keys", "add", "anna", "--expires", "90d") == 0
    assert capsys.readouterr().out == "s3cret\n"
    assert "expires_at" in stub.keys[0]
    file = tmp_path / "k"
    assert infer("keys", "add", "bob", "--key-out", file, "--json") == 0
    assert "s3cret" not in "".join(capsys.readouterr())
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("s3cret\n", 0o600)
    assert infer("keys", "add", "carl", "--key-out", file) == 8
    assert len(stub.keys) == 2
    assert infer("keys", "list") == 0
    assert "anna" in capsys.readouterr().out
    assert infer("keys", "revoke", "1") == 0
    assert len(stub.keys) == 1


def test_a_workers_key_may_be_bound_to_models(infer: Infer, stub: NativeApiStub, capsys):
    assert infer("keys", "add", "home", "--role", "worker", "--model", "lung", "--model", "liver") == 0
    assert stub.keys[0]["models"] == ["lung", "liver"]
    assert infer("keys", "add", "all", "--role", "worker") == 0
    assert "models" not in stub.keys[1]
    capsys.readouterr()
    assert infer("keys", "list") == 0
    listed = capsys.readouterr().out
    assert "lung, liver" in listed
    assert "all" in listed
    assert infer("keys", "add", "anna", "--model", "lung") == 2
    assert "--role worker" in capsys.readouterr().err
    assert len(stub.keys) == 2


def test_every_command_has_help_with_an_example(infer: Infer, capsys):
    commands = ["run", "submit", "status", "logs", "output", "cancel", "retry", "list", "delete"]
    commands += ["models", "keys", "admin", "admin dead-letters", "login", "logout", "whoami"]
    commands += [f"models {name}" for name in ["add", "list", "show", "update", "rm"]]
    commands += [f"keys {name}" for name in ["add", "list", "revoke"]]
    for command in commands:
        assert infer(*command.split(), "--help") == 0
        assert f"  infer {command}" in capsys.readouterr().out.replace("TASK=$(infer", "  infer"), command
    assert infer("--help") == 0
    assert "Exit status: 0 done" in capsys.readouterr().out
