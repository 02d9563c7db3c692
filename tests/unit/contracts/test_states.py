from contracts.states import (
    LEASED_STATES,
    TERMINAL_STATES,
    TRANSITIONS,
    Phase,
    TaskState,
    may_move,
    state_of_phase,
)


def test_every_state_is_reachable_from_queued():
    reached, frontier = {TaskState.QUEUED}, {TaskState.QUEUED}
    while frontier:
        frontier = {new for old in frontier for new in TRANSITIONS[old]} - reached
        reached |= frontier
    assert reached == set(TaskState)


def test_terminal_states_lead_nowhere_and_are_exactly_three():
    assert {state for state in TaskState if not TRANSITIONS[state]} == TERMINAL_STATES
    assert len(TERMINAL_STATES) == 3


def test_a_leased_task_can_go_back_to_the_queue_but_an_ended_one_cannot():
    assert all(may_move(state, TaskState.QUEUED) for state in LEASED_STATES)
    assert not any(may_move(state, TaskState.QUEUED) for state in TERMINAL_STATES)


def test_a_task_succeeds_only_after_it_ran():
    assert [state for state in TaskState if may_move(state, TaskState.SUCCEEDED)] == [TaskState.RUNNING]


def test_every_phase_belongs_to_a_leased_state():
    assert {state_of_phase(phase) for phase in Phase} == LEASED_STATES
