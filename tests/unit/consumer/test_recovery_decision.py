"""What becomes of an attempt of an earlier life."""

from __future__ import annotations

import pytest

from consumer.outside.engine import ContainerFacts
from consumer.outside.labels import TOKEN
from consumer.slot.recovery import Decision, decide_recovery


def container(state: str, started_at: float | None, token: str = "7") -> ContainerFacts:
    return ContainerFacts(
        container_id="c",
        state=state,
        exit_code=0,
        oom_killed=False,
        started_at=started_at,
        labels={TOKEN: token},
    )


@pytest.mark.parametrize(
    ("ours", "found", "decision"),
    [
        (True, container("running", 1.0), Decision.RESUME),
        (True, container("exited", 1.0), Decision.RESUME),
        (True, container("created", None), Decision.RESTART),
        (True, container("running", 1.0, token="6"), Decision.RESTART),
        (True, None, Decision.RESTART),
        (False, container("running", 1.0), Decision.FORGET),
        (False, None, Decision.FORGET),
    ],
)
def test_the_lease_decides_first_and_the_container_second(
    ours: bool, found: ContainerFacts | None, decision: Decision
) -> None:
    assert decide_recovery(lease_is_ours=ours, container=found, token=7) is decision
