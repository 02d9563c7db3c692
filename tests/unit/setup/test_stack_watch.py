"""When a stack counts as up, and when waiting for it is over."""

from __future__ import annotations

import pytest

from setup.stack import compose, stack_watch
from setup.stack.stack_watch import Sight


def sight(
    service: str = "postgres", status: str = "running", health: str = "healthy", restarts: int = 0
) -> Sight:
    return Sight(service, f"id-of-{service}", status, health, restarts, exit_code=1)


def test_a_service_that_is_healthy_or_has_no_check_is_ready() -> None:
    assert stack_watch.unready([sight(), sight("s3", health="")], ["postgres", "s3"]) == {}


@pytest.mark.parametrize(
    ("seen", "how"),
    [
        (sight(health="starting"), "starting"),
        (sight(health="unhealthy"), "unhealthy"),
        (sight(status="restarting"), "restarting, exit code 1"),
        (sight(status="exited"), "exited, exit code 1"),
        (sight(status="created", health=""), "created"),
        (sight(status="paused"), "paused"),
    ],
)
def test_what_is_not_ready_is_named_with_how_it_is(seen: Sight, how: str) -> None:
    assert stack_watch.unready([seen], ["postgres"]) == {"postgres": how}


def test_a_service_without_a_container_is_waited_for() -> None:
    assert stack_watch.unready([], ["proxy"]) == {"proxy": "not there yet"}


def test_one_late_replica_makes_its_service_late() -> None:
    replicas = [sight("public_api"), sight("public_api", health="starting")]
    assert stack_watch.unready(replicas, ["public_api"]) == {"public_api": "starting"}


def test_a_start_that_takes_long_or_fails_a_few_times_is_no_reason_to_give_up() -> None:
    sights = [sight(health="starting"), sight("s3", status="restarting", restarts=2)]
    assert stack_watch.hopeless(sights, {}) == {}


def test_a_service_that_ends_again_and_again_is_given_up() -> None:
    assert "s3" in stack_watch.hopeless([sight("s3", status="restarting", restarts=9)], {})


def test_restarts_from_before_a_mend_do_not_count() -> None:
    assert stack_watch.hopeless([sight("s3", restarts=9)], {"id-of-s3": 9}) == {}


def test_a_service_that_runs_without_answering_is_given_up() -> None:
    assert "s3" in stack_watch.hopeless([sight("s3", health="unhealthy")], {})


def test_a_preparation_that_failed_is_not_waited_for() -> None:
    assert stack_watch.hopeless([sight("proxy-configuration", status="exited", health="")], {})
    # One of the services proper is started again by the engine.
    assert not stack_watch.hopeless([sight("s3", status="exited", health="")], {})


@pytest.mark.parametrize(
    ("said", "numbers"),
    [("1.29.2\n", (1, 29)), ("v2.32.1-desktop.1", (2, 32)), ("5.0.0", (5, 0)), ("unknown", ())],
)
def test_the_versions_of_compose_are_read(said: str, numbers: tuple[int, ...]) -> None:
    assert compose.version_numbers(said) == numbers
