"""The files of `monitoring/`, judged by Prometheus' own tool, and the pages that alarms lead to."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from setup.checks import promtool
from setup.places import Places

ROOT = Path(__file__).resolve().parents[3]
MONITORING = ROOT / "monitoring"
PAGES = ROOT / "docs" / "alarms"
_RULES = yaml.safe_load((MONITORING / "alerts.yml").read_text())
ALERTS: dict[str, Any] = {rule["alert"]: rule for group in _RULES["groups"] for rule in group["rules"]}


def ask_promtool(*words: str | Path) -> str:
    program = promtool.find(Places.from_environment({}))
    assert program is not None, "promtool is missing; `make test` brings it, or put it on the PATH"
    done = subprocess.run([program, *words], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_its_configuration_with_the_rules() -> None:
    said = ask_promtool("check", "config", MONITORING / "prometheus.yml")
    assert f"{len(ALERTS)} rules found" in said


def test_each_alarm_comes_when_it_should_and_not_before() -> None:
    ask_promtool("test", "rules", MONITORING / "alerts_test.yml")
    tried = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tried for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == set(ALERTS)


def test_each_alarm_has_its_page_and_each_page_its_alarm() -> None:
    pages = {page.stem for page in PAGES.glob("*.md")} - {"README"}
    assert pages == set(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/alarms/{name}.md"
        assert rule["labels"]["severity"] in {"critical", "warning"}
        text = (PAGES / f"{name}.md").read_text()
        assert text.startswith(f"# {name}\n")
        for part in ("**Means**", "**Users see**", "**Look at**", "**Do**"):
            assert part in text, f"{name} does not say: {part}"
        assert f"({name}.md)" in (PAGES / "README.md").read_text()


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (PAGES / target).exists(), target
    code = "\n".join(
        file.read_text()
        for room in ("private_api", "public_api", "consumer", "serving")
        for file in (ROOT / room).rglob("*.py")
    )
    for action in re.findall(r'\.action == "(\w+)"', text):
        assert f'"{action}"' in code, f"no line of a log has the action {action}"
    for setting in re.findall(r"`([A-Z][A-Z_]+[A-Z])`", text):
        assert f'"{setting}"' in code, f"there is no setting {setting}"


def test_prometheus_looks_where_the_stack_has_its_services() -> None:
    stack = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    jobs = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    found: dict[str, tuple[str, int]] = {}
    for job in jobs:
        if "static_configs" in job:
            host, _, port = job["static_configs"][0]["targets"][0].partition(":")
            found[job["job_name"]] = (host, int(port))
        else:
            (service,) = job["dns_sd_configs"]
            found[job["job_name"]] = (service["names"][0], service["port"])

    for name, (host, _) in found.items():
        assert host in stack
        assert name == host
    environment = {name: service.get("environment", {}) for name, service in stack.items()}
    assert environment["private_api"]["PRIVATE_API_BIND"] == f"0.0.0.0:{found['private_api'][1]}"
    assert environment["public_api"]["PUBLIC_API_BIND"] == f"0.0.0.0:{found['public_api'][1]}"
    assert environment["consumer"]["METRICS_BIND"] == f"0.0.0.0:{found['consumer'][1]}"


def test_grafana_finds_its_data_source_and_its_dashboard() -> None:
    grafana = MONITORING / "grafana"
    (source,) = yaml.safe_load((grafana / "provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    dashboard = json.loads((grafana / "dashboard.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        for target in panel["targets"]:
            assert target["datasource"] == {"type": source["type"], "uid": source["uid"]}
    (provider,) = yaml.safe_load((grafana / "provisioning/dashboards/inferenceserver.yml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"


def test_every_expression_of_the_dashboard_is_one(tmp_path: Path) -> None:
    dashboard = json.loads((MONITORING / "grafana" / "dashboard.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", ())]
    rules = [{"record": f"panel:{number}", "expr": target["expr"]} for number, target in enumerate(targets)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    assert f"{len(targets)} rules found" in ask_promtool("check", "rules", file)
