"""What becomes of an attempt of an earlier life."""

from __future__ import annotations

import pytest

from consumer.outside.engine import ContainerFacts
from consumer.outside.labels import TOKEN
from consumer.slot.recovery import can_be_followed


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
    ("found", "followed"),
    [
        (container("running", 1.0), True),
        (container("exited", 1.0), True),
        (container("created", None), False),
        (container("running", 1.0, token="6"), False),
        (None, False),
    ],
)
def test_only_a_started_container_of_this_lease_is_followed(
    found: ContainerFacts | None, followed: bool
) -> None:
    assert can_be_followed(found, token=7) is followed
