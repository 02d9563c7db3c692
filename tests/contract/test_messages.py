"""Each message of the worker protocol, held against a file: a change of shape is a change of the protocol."""

import dataclasses
import json
from pathlib import Path

import pytest

from contracts.messages import (
    BlobFacts,
    ClaimRequest,
    Completion,
    Failure,
    Heartbeat,
    HeartbeatAnswer,
    ImageSpec,
    Lease,
    Limits,
    MessageError,
    MountPoints,
    Progress,
    PullPolicy,
    ResolvedImage,
    Sandbox,
    SandboxProfile,
    SlotKind,
    Withdrawal,
)
from contracts.nodes import (
    DiskFacts,
    GpuFacts,
    MachineFacts,
    NodeOrders,
    NodeReport,
    SlotFacts,
    Wanted,
)
from contracts.reasons import ReasonCode
from contracts.states import Phase

GOLDEN = Path(__file__).parent / "golden"
FACTS = BlobFacts(size_bytes=22, sha256="ab" * 32)
LEASE = Lease(
    lease_id="1" * 32,
    token=3,
    lease_seconds=20.0,
    task_id="2" * 32,
    attempt=1,
    model="echo",
    model_version=2,
    image=ImageSpec(tag="echo:1", image_id=None, digest=None, pull_policy=PullPolicy.IF_MISSING),
    sandbox=Sandbox(profile=SandboxProfile.STRICT, network=False, tmp_exec=False),
    use_gpu=False,
    mounts=MountPoints(input="/input", output="/output", model="/model"),
    limits=Limits(
        time_seconds=60.0,
        memory_bytes=1,
        cpus=0.5,
        pids=2,
        output_bytes=3,
        output_files=4,
        log_bytes=5,
        shm_bytes=6,
        tmp_bytes=7,
    ),
    allow_empty_output=False,
    input=FACTS,
    content=None,
    request_id="edge-0123456789abcdef",
)
MESSAGES = {
    "claim_request": ClaimRequest(node="n1", slot="cpu-0", kinds=[SlotKind.CPU], wait_seconds=20.0),
    "withdrawal": Withdrawal(node="n1", slot="cpu-0"),
    "lease": LEASE,
    "lease_with_content": dataclasses.replace(LEASE, content=FACTS),
    "heartbeat": Heartbeat(
        phase=Phase.RUNNING,
        wait_seconds=5.0,
        progress=Progress(fraction=0.4, message="slice 12 of 30"),
        image=ResolvedImage(image_id="sha256:" + "cd" * 32, digest=None),
    ),
    "heartbeat_answer": HeartbeatAnswer(cancel_requested=False, log_bytes=10),
    "completion": Completion(output=FACTS, exit_code=0, durations={"running": 1.5}, progress=None),
    "node_report": NodeReport(
        instance="3" * 32,
        machine=MachineFacts(cpus=16.0, memory_bytes=1, architecture="x86_64", engine_version="20.10.24"),
        disk=DiskFacts(total_bytes=2, free_bytes=1, has_room=True),
        slots=[
            SlotFacts(name="gpu-0", kind=SlotKind.GPU, gpu="GPU-1", task_id="2" * 32),
            SlotFacts(name="cpu-0", kind=SlotKind.CPU),
        ],
        gpus=[GpuFacts(uuid="GPU-1", name="A card", memory_bytes=3)],
        labels={"site": "north"},
        images=["echo:1"],
    ),
    "node_orders": NodeOrders(
        report_seconds=10.0,
        draining=False,
        wanted=[Wanted(model="echo", image=LEASE.image, content=FACTS)],
    ),
    "failure": Failure(
        reason_code=ReasonCode.EXIT_NONZERO, reason="The model exited with 3.", exit_code=3, durations={}
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_written_as_its_golden_file_says(name):
    assert MESSAGES[name].to_json() == json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.mark.parametrize("name", MESSAGES)
def test_a_golden_file_is_read_as_the_message(name):
    message = MESSAGES[name]
    assert type(message).from_json(json.loads((GOLDEN / f"{name}.json").read_text())) == message


def test_an_unknown_field_is_ignored_so_that_either_side_may_be_newer():
    assert BlobFacts.from_json({**FACTS.to_json(), "new": 1}) == FACTS


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"sha256": "x"}, "size_bytes"),
        ({"size_bytes": "1", "sha256": "x"}, "BlobFacts.size_bytes"),
        ({"size_bytes": True, "sha256": "x"}, "BlobFacts.size_bytes"),
        ({"size_bytes": 1.5, "sha256": "x"}, "BlobFacts.size_bytes"),
        ([], "BlobFacts"),
        (None, "BlobFacts"),
    ],
)
def test_a_wrong_message_is_refused_with_the_name_of_its_field(value, named):
    with pytest.raises(MessageError, match=named):
        BlobFacts.from_json(value)


def test_a_whole_number_may_stand_for_a_fraction():
    assert Heartbeat.from_json({"phase": "running", "wait_seconds": 5}).wait_seconds == 5.0


def test_an_unknown_phase_is_refused():
    with pytest.raises(MessageError, match="phase"):
        Heartbeat.from_json({"phase": "dancing", "wait_seconds": 5})
