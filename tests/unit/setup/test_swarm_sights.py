"""What a Swarm shows, and what that means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from setup.console import SetupError
from setup.swarm import sights, status
from setup.swarm.settings import SwarmChosen
from setup.swarm.sights import Job, Machine

HOME = Machine(
    node_id="h", name="home", address="192.168.1.10", state="ready", availability="active", role="manager",
    labels={"inferenceserver.home": "yes"},
)  # fmt: skip
GPU = replace(HOME, node_id="g", name="gpu1", address="192.168.1.11", role="worker", labels={})
PLAIN = SwarmChosen({"SWARM_ENCRYPTION": "off"})
ENCRYPTED = SwarmChosen({"SWARM_ENCRYPTION": "on"})


def job(service: str, node: Machine = HOME, number: int = 1, **changes: object) -> Job:
    """A job that runs."""
    made = Job(
        job_id=f"{service}-{node.node_id}-{number}", service=service, node_id=node.node_id, wanted="running",
        state="running", error="", created_at=f"2026-01-01T00:00:{number:02}Z",
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def everything() -> list[Job]:
    """A stack that is well on two machines."""
    at_home = [job(service) for service in sights.SERVICES if service != "consumer"]
    return [*at_home, job("consumer", HOME), job("consumer", GPU)]


def test_a_stack_that_is_well_waits_for_nothing() -> None:
    assert sights.unready(everything(), [HOME, GPU]) == {}


def test_a_job_is_current_when_it_was_made_as_its_service_says_now() -> None:
    # As an engine answers
    template = {"ContainerSpec": {"Image": "sha256:1"}, "ForceUpdate": 0, "Runtime": "container"}
    assert sights.is_current({"ContainerSpec": {"Image": "sha256:1"}, "ForceUpdate": 0}, template)
    assert not sights.is_current({"ContainerSpec": {"Image": "sha256:2"}, "ForceUpdate": 0}, template)
    assert not sights.is_current({"ContainerSpec": {"Image": "sha256:1"}, "ForceUpdate": 1}, template)


def labelled(**numbers: str) -> list[Machine]:
    return [
        replace(GPU, node_id=name, name=name, labels={sights.BROKER_LABEL: number})
        for name, number in numbers.items()
    ]


def test_three_labelled_machines_have_a_node_of_the_broker_each() -> None:
    sights.require_broker_machines([HOME, *labelled(a="2", b="1", c="3")])


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({}, "no machine has one"),
        ({"a": "1", "b": "2"}, "a has 1, b has 2"),
        ({"a": "1", "b": "2", "c": "2"}, "c has 2"),
        ({"a": "1", "b": "2", "c": "3", "d": "3"}, "d has 3"),
    ],
    ids=["none", "two", "a number twice", "a fourth"],
)
def test_a_broker_that_has_not_its_machines_is_refused(numbers: dict[str, str], said: str) -> None:
    with pytest.raises(SetupError, match=said):
        sights.require_broker_machines([HOME, *labelled(**numbers)])


def test_each_machine_waits_for_its_own_consumer() -> None:
    # Given a machine whose consumer is only starting, and one that has none yet
    third = replace(GPU, node_id="t", name="gpu2")
    seen = [*everything()[:-1], job("consumer", GPU, state="preparing")]
    # Then
    assert sights.unready(seen, [HOME, GPU, third]) == {
        "consumer on gpu1": "preparing",
        "consumer on gpu2": "not there yet",
    }


@pytest.mark.parametrize(
    "change",
    [{"availability": "drain"}, {"state": "down"}, {"labels": {"inferenceserver": "off"}}],
    ids=["drained", "down", "labelled"],
)
def test_a_machine_that_shall_have_no_consumer_is_not_waited_for(change: dict[str, object]) -> None:
    gpu = replace(GPU, **change)  # type: ignore[arg-type]
    assert sights.unready(everything()[:-1], [HOME, gpu]) == {}


def test_what_runs_as_it_was_before_an_update_is_waited_for() -> None:
    seen = [*everything()[:-1], job("consumer", GPU, current=False)]
    assert sights.unready(seen, [HOME, GPU]) == {"consumer on gpu1": "runs its earlier version"}


def test_the_newest_job_of_a_place_counts() -> None:
    # Given a database that failed twice and runs now
    failed = [job("postgres", number=n, state="failed", wanted="shutdown", error="exit 1") for n in (0, 1)]
    seen = [*everything()[1:], *failed, job("postgres", number=2)]
    # Then
    assert sights.unready(seen, [HOME, GPU]) == {}
    assert sights.hopeless(seen, frozenset(), {}) == {}


def test_a_missing_image_is_hopeless_at_once_and_its_machine_named() -> None:
    error = "No such image: sha256:1234"
    seen = [*everything(), job("consumer", GPU, state="rejected", wanted="shutdown", error=error)]
    reasons = sights.hopeless(seen, frozenset(), {"g": "gpu1"})
    assert "no image on gpu1" in reasons["consumer"]
    assert "make bundle-load" in reasons["consumer"]


def test_what_ended_of_an_earlier_version_says_nothing_of_this_one() -> None:
    # Given a machine that could not get the former image, and was told so once more while the update began
    error = "No such image: sha256:1234"
    former = job("consumer", GPU, state="rejected", wanted="shutdown", error=error, current=False)
    # Then
    assert sights.hopeless([*everything(), former], frozenset(), {"g": "gpu1"}) == {}


def test_what_ends_again_and_again_is_hopeless_unless_it_was_so_before() -> None:
    # Given
    seen = [
        job("s3", number=n, state="complete", wanted="shutdown") for n in range(sights.PATIENT_FAILURES + 1)
    ]
    # Then
    assert "ended 7 times" in sights.hopeless(seen, frozenset(), {})["s3"]
    assert sights.hopeless(seen, frozenset(item.job_id for item in seen), {}) == {}


def test_a_machine_that_is_never_heard_is_named_with_the_likely_cause() -> None:
    # Given a consumer that runs, and a server that has never heard it
    seen, nodes, heard = everything(), [HOME, GPU], {"home": "ready"}
    # Then
    assert "UDP 4789" in status.troubles(PLAIN, seen, nodes, heard)["gpu1"]
    assert "encrypted" in status.troubles(ENCRYPTED, seen, nodes, heard)["gpu1"]
    assert status.troubles(PLAIN, seen, nodes, {**heard, "gpu1": "ready"}) == {}
    # And where the server cannot be asked, nobody is blamed
    assert status.troubles(PLAIN, seen, nodes, None) == {}


def test_machines_with_one_name_and_machines_that_are_down_are_named() -> None:
    twin = replace(GPU, node_id="t")
    down = replace(GPU, node_id="d", name="gpu9", state="down")
    seen = [*everything(), job("consumer", twin)]
    troubles = status.troubles(PLAIN, seen, [HOME, GPU, twin, down], {"home": "", "gpu1": ""})
    assert "several machines" in troubles["gpu1"]
    assert "down" in troubles["gpu9"]
