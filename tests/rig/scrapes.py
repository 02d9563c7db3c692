"""What a service shows to Prometheus, as a test looks at it: parsed strictly, asked for by name and label."""

from __future__ import annotations

from dataclasses import dataclass

import requests
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


@dataclass(frozen=True)
class Scrape:
    """One answer of ``/metrics``."""

    text: str
    samples: tuple[Sample, ...]

    def sum(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels; fails where there are none."""
        found = self._values(name, labels)
        assert found, f"no sample {name} {labels}"
        return sum(found)

    def since(self, before: Scrape, name: str, **labels: str) -> float:
        """How much that sum has grown; what was not shown before was 0."""
        return self.sum(name, **labels) - sum(before._values(name, labels))

    def _values(self, name: str, labels: dict[str, str]) -> list[float]:
        return [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]


def scrape(url: str) -> Scrape:
    """Ask ``url``/metrics as Prometheus does, without a key."""
    answer = requests.get(f"{url}/metrics", timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return parse(answer.text)


def parse(text: str) -> Scrape:
    """``text`` in Prometheus' format."""
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families), "a metric is shown twice"
    return Scrape(text, tuple(sample for family in families for sample in family.samples))
