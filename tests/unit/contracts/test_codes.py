from contracts.problems import PROBLEMS, ProblemCode
from contracts.reasons import REASONS, Fault, ReasonCode, fault_of


def test_every_reason_says_whose_failure_it_is():
    assert set(REASONS) == set(ReasonCode)


def test_a_models_failure_is_never_ours():
    assert fault_of(ReasonCode.EXIT_NONZERO) is Fault.MODEL
    assert fault_of(ReasonCode.OUT_OF_MEMORY) is Fault.MODEL
    assert fault_of(ReasonCode.WORKER_LOST) is Fault.OURS


def test_only_a_drained_attempt_is_free():
    assert [code for code, reason in REASONS.items() if not reason.spends_attempt] == [ReasonCode.DRAINED]


def test_every_problem_has_a_status_of_an_error_and_a_title():
    assert set(PROBLEMS) == set(ProblemCode)
    assert all(400 <= problem.status < 600 and problem.title for problem in PROBLEMS.values())


def test_a_problem_that_may_pass_is_marked_so():
    assert PROBLEMS[ProblemCode.UNAVAILABLE].retryable
    assert not PROBLEMS[ProblemCode.INPUT_INVALID].retryable
