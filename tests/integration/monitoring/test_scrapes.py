"""What a running server shows to Prometheus: everything that alarms and dashboard ask for, counted once."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.integration.monitoring.conftest import Watched
from tests.rig.api import Api
from tests.rig.polling import eventually
from tests.rig.scrapes import Scrape, scrape

MONITORING = Path(__file__).resolve().parents[3] / "monitoring"


def expressions() -> dict[str, str]:
    """Every PromQL expression that we ship, by where it stands."""
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    found = {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}
    dashboard = json.loads((MONITORING / "grafana" / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            found[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    return found


def selectors(expression: str) -> list[tuple[str, dict[str, str]]]:
    """The metrics in an expression, each with what it wants of its labels, as patterns."""
    found = []
    for match in re.finditer(r"\b((?:inferenceserver|rabbitmq)_\w+)(?:\{([^}]*)\})?", expression):
        wanted = re.findall(r'(\w+)=(~?)"([^"]*)"', match[2] or "")
        patterns = {name: text if operator else re.escape(text) for name, operator, text in wanted}
        found.append((match[1], {name: text for name, text in patterns.items() if name != "job"}))
    return found


def grouping_labels(expression: str) -> set[str]:
    names = re.findall(r"\b(?:by|on) ?\(([^)]*)\)", expression)
    return {name.strip() for group in names for name in group.split(",")} - {"job", "instance", "le"}


@dataclass(frozen=True)
class Worked(Watched):
    """The server after it has done a bit of everything, and what each service showed before."""

    before: dict[str, Scrape]


@pytest.fixture(scope="session")
def worked(watched: Watched, admin: Api) -> Worked:
    before = {job: scrape(url) for job, url in watched.urls.items()}
    echo, failing = admin.register("echo"), admin.register("exits-3")
    assert admin.run(echo)["state"] == "succeeded"
    assert admin.run(failing)["state"] == "failed"
    for _ in range(5):
        assert admin.get("/v1/models").status_code == 200
    assert requests.get(f"{watched.server.url}/v1/tasks", timeout=10).status_code == 401
    return Worked(watched.server, watched.consumer_url, before)


@pytest.fixture(scope="session")
def shown(worked: Worked) -> dict[str, Scrape]:
    return {job: scrape(url) for job, url in worked.urls.items()}


@pytest.mark.parametrize("where", expressions())
def test_every_metric_that_is_asked_for_is_shown_with_the_labels_asked_for(
    shown: dict[str, Scrape], where: str
) -> None:
    samples = [sample for one in shown.values() for sample in one.samples]
    expression = expressions()[where]
    asked = selectors(expression)
    assert asked or re.search(r"\bup\b", expression)
    labels: set[str] = set()
    for name, patterns in asked:
        of_name = [sample for sample in samples if sample.name == name]
        assert of_name, f"nobody shows {name}"
        labels |= {label for sample in of_name for label in sample.labels}
        for label, pattern in patterns.items():
            # There may be no errors of the server; their label must be there all the same.
            matching = [s for s in of_name if re.fullmatch(pattern, s.labels.get(label, ""))]
            assert matching or (label, pattern) == ("status", "50."), f"no {name} with {label}={pattern}"
            assert all(label in sample.labels for sample in of_name), f"{name} has no label {label}"
    assert grouping_labels(expression) <= labels


def test_work_is_counted_once_whichever_process_did_it(worked: Worked) -> None:
    # Given what was done above, when each of several answers, by whichever process, is looked at
    for _ in range(6):
        private, public = scrape(worked.server.private_url), scrape(worked.server.url)
        did = partial(private.since, worked.before["private_api"])
        answered = partial(public.since, worked.before["public_api"], "inferenceserver_http_requests_total")

        # Then all processes' work is in it, once
        assert did("inferenceserver_tasks_accepted_total", kind="cpu") == 2
        assert did("inferenceserver_tasks_claimed_total", kind="cpu") == 2
        finished = "inferenceserver_tasks_finished_total"
        assert did(finished, state="succeeded", reason_code="none") == 1
        assert did(finished, state="failed", reason_code="exit_nonzero") == 1
        assert did(finished) == 2
        phases = "inferenceserver_task_phase_duration_seconds_count"
        assert did(phases, phase="queued") == did(phases, phase="running") == 2
        assert did("inferenceserver_announcements_confirmed_total", kind="cpu") >= 2
        assert answered(route="/v1/models", method="GET", status="200") == 5
        assert answered(route="/v1/models", method="POST", status="201") == 2
        assert answered(route="/v1/tasks", method="GET", status="401") == 1
        # What both processes could tell of one thing is not told twice.
        assert private.sum("inferenceserver_tasks", kind="cpu", state="queued") == 0
        assert private.sum("inferenceserver_slots_heard", kind="cpu") == 2
        assert private.sum("inferenceserver_database_up") == 1
        assert private.sum("inferenceserver_broker_up") == 1
        # And what each has for itself is added up.
        assert private.sum("inferenceserver_http_threads") == 2 * 1344
        assert public.sum("inferenceserver_places", kind="control") == 2 * 64
        assert public.sum("inferenceserver_places_in_use") == 0


def test_the_parent_of_a_node_shows_what_its_slots_count(worked: Worked) -> None:
    def all_idle() -> Scrape | None:
        seen = scrape(worked.consumer_url)
        return seen if seen.sum("inferenceserver_slots", kind="cpu", state="idle") == 2 else None

    node = eventually(all_idle, 20, "both slots are idle")
    assert node.sum("inferenceserver_slots") == node.sum("inferenceserver_slots_configured") == 2
    assert node.sum("inferenceserver_slots_hearing_broker") == 2
    did = partial(node.since, worked.before["consumer"])
    assert did("inferenceserver_attempts_total", outcome="succeeded") == 1
    assert did("inferenceserver_attempts_total", outcome="exit_nonzero") == 1
    assert did("inferenceserver_attempt_phase_duration_seconds_count", phase="running") == 2
    assert did("inferenceserver_cache_lookups_total", cache="image", result="hit") == 2
    assert (
        0
        < node.sum("inferenceserver_node_disk_free_bytes")
        < node.sum("inferenceserver_node_disk_size_bytes")
    )


def test_nothing_of_anybody_is_shown(worked: Worked, shown: dict[str, Scrape], admin: Api) -> None:
    secrets = {worked.server.key("admin"), worked.server.key("worker")}
    names = {model["human_readable_id"] for model in admin.get("/v1/models").json()["items"]}
    for one in shown.values():
        assert not any(secret in one.text for secret in secrets | names)
        for sample in one.samples:
            for label, value in sample.labels.items():
                assert not re.search(r"[0-9a-f]{16}", value), f"{sample.name} has an id in {label}"
        # A few hundred of routes and buckets; a label that grows with its users would soon be thousands.
        assert len(one.samples) < 3000


def test_an_address_that_is_not_there_makes_no_series(worked: Worked) -> None:
    before = len(scrape(worked.server.url).samples)
    for number in range(20):
        requests.request(f"METHOD{number}", f"{worked.server.url}/nothing/{number}", timeout=10)

    after = scrape(worked.server.url)
    # One sample of requests, and one histogram, for all of them together.
    assert len(after.samples) - before < 30
    assert after.sum("inferenceserver_http_requests_total", route="none", method="other") >= 20


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via"])
def test_who_comes_through_a_proxy_finds_nothing(worked: Worked, header: str) -> None:
    answer = requests.get(f"{worked.server.url}/metrics", headers={header: "192.0.2.1"}, timeout=10)
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_a_process_that_dies_has_counted_and_has_no_present(worked: Worked) -> None:
    # Given two processes of the public API, one of which is killed
    service = worked.server.public_api
    threads = scrape(worked.server.url).sum("inferenceserver_http_threads")
    victim = next(pid for pid in service.processes() if pid != service.pid)
    os.kill(victim, signal.SIGKILL)

    # When its successor serves
    def replaced() -> Scrape | None:
        if victim in service.processes() or len(service.processes()) < 3:
            return None
        try:
            seen = scrape(worked.server.url)
        except requests.RequestException:
            # It had reached the process that was killed.
            return None
        # It tells one after the other.
        of_two = (threads, 2 * 64)
        now = (seen.sum("inferenceserver_http_threads"), seen.sum("inferenceserver_places", kind="control"))
        return seen if now == of_two else None

    # Then nothing of the moment is doubled, and nothing that was counted is lost
    after = eventually(replaced, 30, "both serve")
    models = {"route": "/v1/models", "method": "GET", "status": "200"}
    assert after.sum("inferenceserver_http_requests_total", **models) >= 5


def test_the_state_of_a_slot_that_died_is_forgotten(worked: Worked) -> None:
    # Given a slot's process, which is killed
    service = worked.server.consumer
    victim = next(pid for pid in service.processes() if b"--slot" in _command(pid))
    os.kill(victim, signal.SIGKILL)

    # When its successor is idle again
    def idle_again() -> Scrape | None:
        slots = [pid for pid in service.processes() if b"--slot" in _command(pid)]
        if victim in slots or len(slots) < 2:
            return None
        seen = scrape(worked.consumer_url)
        return seen if seen.sum("inferenceserver_slots", state="idle") == 2 else None

    node = eventually(idle_again, 30, "the slot is started again")

    # Then there are two slots, as before
    assert node.sum("inferenceserver_slots") == 2


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_what_is_shown_can_be_read_by_strict_readers(shown: dict[str, Scrape]) -> None:
    for one in shown.values():
        for sample in one.samples:
            assert sample.name.startswith("inferenceserver_")
            assert isinstance(sample.value, float)
        kinds: dict[str, Any] = dict(re.findall(r"^# TYPE (\S+) (\w+)$", one.text, re.MULTILINE))
        assert "untyped" not in kinds.values()
        assert "unknown" not in kinds.values()
        for name, kind in kinds.items():
            assert kind != "counter" or name.endswith("_total"), name
            assert f"# HELP {name} " in one.text
