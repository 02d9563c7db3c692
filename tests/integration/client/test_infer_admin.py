"""``infer admin``, and how long models keep data."""

from __future__ import annotations

import json
from collections.abc import Callable

from native_api_stub import NativeApiStub

Infer = Callable[..., int]


def letter(number: int, **fields: object) -> dict[str, object]:
    return {
        "received_at": "2026-11-21T08:00:00Z", "queue": "tasks.cpu", "reason": "rejected",
        "body": f'{{"odd": {number}}}', "body_encoding": "utf-8", "truncated": False, **fields,
    }  # fmt: skip


def test_dead_letters_are_shown_and_cleared(infer: Infer, stub: NativeApiStub, capsys):
    assert infer("admin", "dead-letters") == 0
    assert "There are none." in capsys.readouterr().err
    stub.dead_letters = [
        letter(1),
        letter(2, body="\x1b[2J" + "x" * 300),
        letter(
            3, body="/wA=", body_encoding="base64", truncated=True, received_at=None, queue=None, reason=None
        ),
        letter(4),
    ]
    assert infer("admin", "dead-letters", "--limit", "3") == 0
    shown = capsys.readouterr()
    assert '{"odd": 1}' in shown.out
    assert "tasks.cpu" in shown.out
    assert "\x1b" not in shown.out
    assert "(base64) /wA=…" in shown.out
    assert "These are the oldest 3 of 4." in shown.err
    assert infer("admin", "dead-letters", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"dead_letters": stub.dead_letters, "count": 4}
    assert infer("admin", "dead-letters", "--clear") == 0
    assert capsys.readouterr().out == "Removed 4.\n"
    assert infer("admin", "dead-letters", "--clear", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"removed": 0}


def test_how_long_a_model_keeps_data(infer: Infer, stub: NativeApiStub, tmp_path, capsys):
    times = ["--keep-input", "1d", "--keep-output", "forever"]
    assert infer("models", "add", "ct", "ct:1", *times) == 0
    assert stub.models["ct"]["input_retention_seconds"] == 86400
    assert stub.models["ct"]["output_retention_seconds"] == 0
    assert "log_retention_seconds" not in stub.models["ct"]
    shown = capsys.readouterr().out
    assert "keeps input   1d00h" in shown
    assert "keeps output  forever" in shown
    assert infer("models", "update", "ct", "--keep-output", "default", "--keep-log", "2h") == 0
    assert stub.models["ct"]["output_retention_seconds"] is None
    assert stub.models["ct"]["log_retention_seconds"] == 7200
    assert infer("models", "update", "ct", "--keep-output", "sometimes") == 2
    # A form cannot say "as the server has it"; leaving it out in silence would keep the old time.
    content = tmp_path / "weights"
    content.write_bytes(b"w")
    assert infer("models", "update", "ct", "--keep-output", "default", "--content", content) == 2
    assert "one after the other" in capsys.readouterr().err
