"""The base configuration as a file: Caddy takes it as it stands, and its words are those of the services."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import docker

from contracts.problems import PROBLEMS, ProblemCode
from proxy.domains import BASE
from tests.integration.proxy.running_proxy import IMAGE
from tests.rig.containers import run_alone
from tests.rig.parts import LABEL


def test_caddy_finds_the_base_configuration_valid() -> None:
    # when
    done = run_alone(
        docker.from_env(),
        IMAGE,
        ["caddy", "validate", "--config", "/etc/caddy/base.json"],
        volumes={str(BASE): {"bind": "/etc/caddy/base.json", "mode": "ro"}},
        network_mode="none",
        labels={LABEL: "1"},
    )

    # then
    assert "Valid configuration" in done.text


def test_its_problem_documents_are_those_of_the_contract() -> None:
    # when
    documents = list(problem_documents(json.loads(Path(BASE).read_text())))

    # then
    assert len(documents) == 3
    for status, document in documents:
        problem = PROBLEMS[ProblemCode(document["code"])]
        assert document["type"] == f"urn:inferenceserver:problem:{document['code']}"
        assert (document["title"], document["status"]) == (problem.title, problem.status)
        assert (document["retryable"], status) == (problem.retryable, problem.status)


def problem_documents(node: Any) -> Any:
    if isinstance(node, dict):
        if str(node.get("body", "")).startswith("{"):
            assert node["headers"]["Content-Type"] == ["application/problem+json"]
            yield node["status_code"], json.loads(node["body"])
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from problem_documents(child)
