import pytest

from contracts.reasons import ReasonCode
from contracts.timing import MAX_ATTEMPTS
from private_api.decisions.retries import Cancel, Fail, Requeue, after_failure


@pytest.mark.parametrize(
    ("code", "spoiled", "cancel_requested", "expected"),
    [
        (ReasonCode.EXIT_NONZERO, 0, False, Fail()),
        (ReasonCode.OUT_OF_MEMORY, 0, False, Fail()),
        (ReasonCode.TIMED_OUT, 0, False, Fail()),
        (ReasonCode.INPUT_INVALID, 0, False, Fail()),
        (ReasonCode.IMAGE_UNAVAILABLE, 0, False, Fail()),
        (ReasonCode.EXIT_NONZERO, 0, True, Fail()),
        (ReasonCode.CANCELED_BY_USER, 0, True, Cancel()),
        (ReasonCode.WORKER_LOST, 0, False, Requeue(delay_seconds=1.0, spoiled=1)),
        (ReasonCode.ENGINE_FAILED, 1, False, Requeue(delay_seconds=4.0, spoiled=2)),
        (ReasonCode.STORAGE_FAILED, 3, False, Requeue(delay_seconds=60.0, spoiled=4)),
        (ReasonCode.WORKER_LOST, MAX_ATTEMPTS - 1, False, Fail()),
        (ReasonCode.WORKER_LOST, 0, True, Cancel()),
        (ReasonCode.DRAINED, 4, False, Requeue(delay_seconds=0.0, spoiled=4)),
        (ReasonCode.DRAINED, 0, True, Cancel()),
    ],
)
def test_what_becomes_of_a_task_after_a_failed_attempt(code, spoiled, cancel_requested, expected):
    assert after_failure(code, spoiled=spoiled, cancel_requested=cancel_requested) == expected


def test_a_task_whose_infrastructure_always_fails_ends_after_its_attempts():
    spoiled, attempts = 0, 0
    while True:
        attempts += 1
        decision = after_failure(ReasonCode.WORKER_LOST, spoiled=spoiled, cancel_requested=False)
        if isinstance(decision, Fail):
            break
        spoiled = decision.spoiled
    assert attempts == MAX_ATTEMPTS
