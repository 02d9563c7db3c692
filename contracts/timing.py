"""The clockwork of leases: how long one lasts, how often it is renewed and looked after. Seconds."""

from __future__ import annotations

# A dead worker's task must run elsewhere within 30 s: 20 for the lease, 2 for the reaper, the rest to start.
LEASE_SECONDS = 20.0
REAP_SECONDS = 2.0
# The longest that any long poll is held; a client's own time limits must lie above it.
MAX_WAIT_SECONDS = 60.0
# Attempts that the infrastructure may spoil before the task fails for good.
MAX_ATTEMPTS = 5
