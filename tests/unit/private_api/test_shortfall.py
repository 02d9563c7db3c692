"""How many announcements are made again."""

import pytest

from private_api.decisions.shortfall import shortfall


@pytest.mark.parametrize(
    ("queued", "ready", "on_the_way", "missing"),
    [
        (0, 0, 0, 0),
        (5, 5, 0, 0),
        (5, 3, 2, 0),
        (5, 3, 0, 2),
        # More messages than tasks: they find nothing, and are gone.
        (5, 9, 0, 0),
        (0, 1, 1, 0),
        # A broker without its data is told a part at a time.
        (5000, 0, 0, 1000),
        (5000, 4500, 0, 500),
    ],
)
def test_what_has_no_message_is_announced_again(queued, ready, on_the_way, missing):
    assert shortfall(queued=queued, ready=ready, on_the_way=on_the_way) == missing
