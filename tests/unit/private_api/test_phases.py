import pytest

from contracts.states import Phase
from private_api.decisions.phases import must_grant_period, phase_limit_seconds


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_has_a_limit(phase):
    assert 0 < phase_limit_seconds(phase, 60.0) < float("inf")


def test_a_model_is_given_more_than_its_own_limit_before_the_server_steps_in():
    assert phase_limit_seconds(Phase.RUNNING, 3600.0) > 3600.0


@pytest.mark.parametrize(
    ("gap", "granted"), [(None, True), (0.5, False), (2.1, False), (6.0, False), (6.1, True), (3600.0, True)]
)
def test_leases_are_granted_a_period_after_a_gap_of_the_reaper(gap, granted):
    assert must_grant_period(since_last_pass_seconds=gap, pass_seconds=2.0) is granted
