"""How many tasks must be announced again: a pure count, so that announcements are repeated, never multiplied.

The database counts the tasks that could run now, the broker the messages that nobody has taken. A message
leads to whichever task is first in line, so that only their numbers matter.
"""

from __future__ import annotations

# More at a time would hold up the announcements of new tasks.
MOST_AT_ONCE = 1000


def shortfall(*, queued: int, ready: int, on_the_way: int) -> int:
    """How many ``queued`` tasks have no message, neither ``ready`` at the broker nor ``on_the_way`` to it."""
    return min(max(0, queued - ready - on_the_way), MOST_AT_ONCE)
