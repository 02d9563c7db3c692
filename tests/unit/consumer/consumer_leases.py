"""A lease to begin with; tests change what they are about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from contracts.messages import (
    BlobFacts,
    ImageSpec,
    Lease,
    Limits,
    MountPoints,
    PullPolicy,
    Sandbox,
    SandboxProfile,
)

MIB = 1024**2


def lease(*, profile: SandboxProfile = SandboxProfile.STRICT, **fields: Any) -> Lease:
    return replace(
        Lease(
            lease_id="lease",
            token=7,
            lease_seconds=20.0,
            task_id="0" * 31 + "1",
            attempt=2,
            model="model",
            model_version=1,
            image=ImageSpec(
                tag="repo/model:1", image_id=None, digest=None, pull_policy=PullPolicy.IF_MISSING
            ),
            sandbox=Sandbox(profile=profile, network=False, tmp_exec=False),
            use_gpu=False,
            mounts=MountPoints(input="/input", output="/output", model="/model"),
            limits=Limits(
                time_seconds=60, memory_bytes=512 * MIB, cpus=1.5, pids=256, output_bytes=1024 * MIB,
                output_files=1000, log_bytes=4 * MIB, shm_bytes=64 * MIB, tmp_bytes=128 * MIB,
            ),
            allow_empty_output=False,
            input=BlobFacts(size_bytes=0, sha256="0" * 64),
            content=None,
        ),
        **fields,
    )  # fmt: skip
