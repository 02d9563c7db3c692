"""What the public API counts beside its requests: its places, wrong keys, and trouble upstream."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from public_api.routes import Kind

PLACES = Gauge(
    "inferenceserver_places", "Places for requests, by kind.", ["kind"], multiprocess_mode="livesum"
)
PLACES_IN_USE = Gauge(
    "inferenceserver_places_in_use", "Places taken at this moment.", ["kind"], multiprocess_mode="livesum"
)
REFUSALS = Counter(
    "inferenceserver_places_refused", "Requests refused because no place of their kind was free.", ["kind"]
)
THROTTLED = Counter(
    "inferenceserver_keys_throttled", "Requests refused because their address sent too many wrong keys."
)
WRONG_KEYS = Counter("inferenceserver_keys_wrong", "Keys that the private API did not know.")
UPSTREAM_ERRORS = Counter(
    "inferenceserver_upstream_errors",
    "Calls to the private API without an answer, and answers that broke off, by kind of request.",
    ["kind"],
)

for _kind in Kind:
    # Shown from the start: a counter that appears with its first count hides that count.
    for _metric in (PLACES, PLACES_IN_USE, REFUSALS, UPSTREAM_ERRORS):
        _metric.labels(_kind.value)
