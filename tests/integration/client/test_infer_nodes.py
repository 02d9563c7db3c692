"""``infer nodes``, and what a model asks of a node."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from inference_server_client import ApiError, Client, NotFoundError
from native_api_stub import NativeApiStub

Infer = Callable[..., int]
GIB = 1024**3


def node(name: str, **fields: Any) -> dict[str, Any]:
    heard = (datetime.now(UTC) - timedelta(seconds=3)).isoformat()
    return {
        "name": name, "state": "ready", "draining": False, "left": False,
        "first_heard_at": "2026-11-21T08:00:00Z", "heard_at": heard,
        "machine": {"cpus": 16.0, "memory_bytes": 64 * GIB, "architecture": "x86_64", "engine_version": "2"},
        "disk": {"total_bytes": 100 * GIB, "free_bytes": 40 * GIB, "has_room": True},
        "labels": {"site": "north"},
        "slots": [
            {"name": "gpu-0", "kind": "gpu", "gpu": "GPU-a", "task_id": "ab" * 16, "model": "lung"},
            {"name": "gpu-1", "kind": "gpu", "gpu": "GPU-b", "task_id": None, "model": None},
        ],
        "gpus": [
            {"uuid": "GPU-a", "name": "Card A", "memory_bytes": 24 * GIB},
            {"uuid": "GPU-b", "name": "Card A", "memory_bytes": 24 * GIB},
        ],
        "images": ["lung:1", "liver:2"],
        **fields,
    }  # fmt: skip


@pytest.fixture
def stub(stub: NativeApiStub) -> NativeApiStub:
    stub.nodes = {
        "gpu1": node("gpu1"),
        "old": node("old", state="left", left=True, gpus=[], slots=[]),
        "evil": node("evil", labels={"\x1b[2J": "\x1b"}),
    }
    return stub


def test_nodes_are_listed_with_how_they_stand_and_what_they_have(infer: Infer, stub: NativeApiStub, capsys):
    assert infer("nodes") == 0
    heading, first, second, _ = capsys.readouterr().out.splitlines()
    assert heading.split() == ["NODE", "STATE", "SLOTS", "BUSY", "GPUS", "MEMORY", "FREE", "DISK", "HEARD"]
    assert first.split()[:12] == ["gpu1", "ready", "2", "1", "2", "x", "24", "GiB", "64", "GiB", "40", "GiB"]
    assert first.endswith("s ago")
    assert second.split()[:4] == ["old", "left", "0", "0"]
    assert infer("nodes", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed["items"]] == ["gpu1", "old", "evil"]


def test_a_list_goes_on_where_it_ended(infer: Infer, stub: NativeApiStub, capsys):
    assert infer("nodes", "--limit", "1") == 0
    assert "There are more: --cursor 1" in capsys.readouterr().err
    assert infer("nodes", "--limit", "1", "--cursor", "1") == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("old ")


def test_one_node_is_shown_with_what_runs_there(infer: Infer, stub: NativeApiStub, capsys):
    assert infer("nodes", "show", "gpu1") == 0
    shown = capsys.readouterr().out
    assert f"gpu, Card A, runs {'ab' * 16} (lung)" in shown
    assert "gpu, Card A, free" in shown
    assert "40 GiB free of 100 GiB" in shown
    assert "site=north" in shown
    assert "liver:2" in shown
    assert infer("nodes", "show", "evil") == 0
    assert "\x1b" not in capsys.readouterr().out
    assert infer("nodes", "show", "none") != 0


def test_a_node_is_drained_and_resumed(infer: Infer, stub: NativeApiStub, capsys):
    assert infer("nodes", "drain", "gpu1") == 0
    assert "takes no more tasks. 1 of its slots still run a task." in capsys.readouterr().err
    assert stub.nodes["gpu1"]["state"] == "draining"
    assert infer("nodes", "resume", "gpu1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"] == "ready"


def test_only_a_node_that_is_gone_is_forgotten(infer: Infer, stub: NativeApiStub, capsys):
    assert infer("nodes", "forget", "gpu1") != 0
    assert "node_in_use" in capsys.readouterr().err
    assert infer("nodes", "forget", "old") == 0
    assert "old" not in stub.nodes


def test_a_program_sees_the_same(stub: NativeApiStub, client: Client):
    found = client.nodes.get("gpu1")
    assert (found.state, found.labels["site"], found.slots[0].model) == ("ready", "north", "lung")
    assert [one.name for one in client.nodes.page().items] == ["gpu1", "old", "evil"]
    with pytest.raises(NotFoundError):
        client.nodes.drain("none")
    with pytest.raises(ApiError):
        client.nodes.forget("gpu1")


def test_what_a_model_asks_of_a_node_is_sent_and_shown_and_taken_back(
    infer: Infer, stub: NativeApiStub, capsys
):
    asked = ["--gpu", "--gpu-memory", "24g", "--node-label", "site=north", "--node-label", "disk=ssd"]
    assert infer("models", "add", "large", "large:1", *asked) == 0
    model = stub.models["large"]
    assert model["gpu_memory_bytes"] == 24 * GIB
    assert model["node_labels"] == {"site": "north", "disk": "ssd"}
    shown = capsys.readouterr().out
    assert "24 GiB" in shown
    assert "site=north, disk=ssd" in shown
    assert infer("models", "update", "large", "--gpu-memory", "any", "--node-label", "any") == 0
    assert (model["gpu_memory_bytes"], model["node_labels"]) == (None, None)


def test_labels_go_along_with_content_as_json(infer: Infer, stub: NativeApiStub, tmp_path: Path):
    content = tmp_path / "weights.zip"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("w", "1")
    content.write_bytes(buffer.getvalue())
    arguments = ["--content", str(content), "--node-label", "site=north"]
    assert infer("models", "add", "weighty", "w:1", *arguments) == 0
    assert json.loads(stub.models["weighty"]["node_labels"]) == {"site": "north"}


@pytest.mark.parametrize(
    "arguments",
    [["--node-label", "north"], ["--node-label", "any", "--node-label", "a=b"], ["--gpu-memory", "much"]],
)
def test_what_is_no_label_or_size_is_refused_before_anything_is_sent(
    infer: Infer, stub: NativeApiStub, arguments
):
    assert infer("models", "add", "large", "large:1", *arguments) == 2
    assert "large" not in stub.models


def test_warnings_are_said_beside_the_answer(infer: Infer, stub: NativeApiStub, capsys):
    stub.add_model("echo", warnings=["No node could run this model now. It needs a GPU; no node has one."])
    assert infer("models", "update", "echo", "--gpu") == 0
    said = capsys.readouterr()
    assert "Warning: No node could run this model now. It needs a GPU; no node has one." in said.err
    assert "Warning" not in said.out
