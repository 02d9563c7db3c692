"""The served OpenAPI document is true: what a fuzzer makes of it is answered as it says, whatever is sent.

A server of its own, for an admin's fuzzer changes and deletes what it finds. Every operation of the document
is tried. The document is fuzzed as it is served but for three notes to the fuzzer, which change no answer's
description: values that mean something stand beside those that it invents, an answer is held for at most a
second, and zips are now and then real ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from private_api.http import openapi
from tests.rig.api import Api
from tests.rig.fixtures import running_server
from tests.rig.parts import Part
from tests.rig.server import Server
from tests.rig.zips import zip_of

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# Drawn for each operation, on top of the edge cases that the fuzzer goes through systematically.
EXAMPLES = 4

# Stand for the ids of real things, which are known only once the server runs.
ENDED, FAILED, RUNNING, KEY, MODEL, NEW_MODEL, NODE = (digit * 32 for digit in "0123456")
KNOWN = {
    "task_id": [ENDED, FAILED, RUNNING],
    "key_id": [KEY],
    "node_name": [NODE],
    "human_readable_id": [MODEL],
    "model_human_readable_id": [MODEL],
}
# What an image, an id or a mount point must look like, the document has no words for.
IN_BODIES = {
    name: {"type": "string", "enum": [value]}
    for name, value in {
        "human_readable_id": NEW_MODEL,
        "container_tag": "registry.example.org/group/model:1.2",
        "input_mountpoint": "/data/in",
        "output_mountpoint": "/data/out",
        "model_mountpoint": "/data/model",
    }.items()
}

zips = st.one_of(
    st.sampled_from([zip_of({"in.txt": b"in"}), zip_of({}), zip_of({"../up": b"x"})]), st.binary(max_size=64)
)
schemathesis.openapi.media_type("application/zip", zips)
schemathesis.openapi.format("binary", zips)

numbers = itertools.count()

Document = dict[str, Any]


def _described() -> Document:
    app = Flask(__name__)
    app.register_blueprint(openapi.blueprint)
    described: Document = app.test_client().get("/openapi.json").json
    return described


def _noted(document: Document) -> Document:
    schemas = document["components"]["schemas"]
    bodies = [schemas["ModelSettings"], schemas["ModelRegistration"]]
    for operation in (o for path in document["paths"].values() for o in path.values()):
        for parameter in operation["parameters"]:
            name, schema = parameter["name"], parameter["schema"]
            parameter["schema"] = _or_known(name, schema)
            if name == "Prefer":
                schema["pattern"] = "^wait=[01]$"
            elif name == "wait":
                schema["maximum"] = 1
        content = operation.get("requestBody", {}).get("content", {})
        bodies += [body["schema"] for kind, body in content.items() if kind == "multipart/form-data"]
    for body in bodies:
        # Alone, or hardly any body would be whole; what is wrong with them the fuzzer tries all the same.
        body["properties"] |= {name: IN_BODIES[name] for name in body["properties"] if name in IN_BODIES}
    return document


def _or_known(name: str, schema: Document) -> Document:
    return {"anyOf": [{"type": "string", "enum": KNOWN[name]}, schema]} if name in KNOWN else schema


fuzzed = schemathesis.openapi.from_dict(
    _noted(_described()),
    config=SchemathesisConfig(
        seed=1,
        projects=ProjectsConfig(
            default=ProjectConfig(generation=GenerationConfig(deterministic=True, database="none"))
        ),
    ),
)


@pytest.fixture(scope="module")
def fuzzed_server(tmp_path_factory: pytest.TempPathFactory, rabbitmq: Part) -> Iterator[Server]:
    # With a broker, for without one there are no dead letters to ask for.
    state = tmp_path_factory.mktemp("fuzzed")
    with running_server(state, slots=2, BROKER_URL=rabbitmq.url) as server:
        yield server


@pytest.fixture
def real_ids(fuzzed_server: Server) -> Iterator[dict[str, str]]:
    """What is on the server for each stand-in; new for every operation, for the one before may delete it."""
    admin = fuzzed_server.admin
    ended, failed = (admin.run(admin.register(model)) for model in ("echo", "exits-3"))
    running = admin.running(admin.submit(admin.register("sleeps-for-ever")))
    key = admin.post("/v1/keys", json={"name": "to revoke", "role": "user"}).json()
    yield {
        ENDED: ended["id"],
        FAILED: failed["id"],
        RUNNING: running["id"],
        KEY: key["id"],
        MODEL: admin.register("echo"),
        NODE: _node_that_left(fuzzed_server),
    }
    admin.post(f"/v1/tasks/{running['id']}/cancel")


def _node_that_left(server: Server) -> str:
    """A node of which nothing is left but its name; the server's own must go on taking tasks."""
    name = f"left-{next(numbers)}"
    report = {
        "instance": name,
        "machine": {"cpus": 1.0, "memory_bytes": 1, "architecture": "x86_64", "engine_version": ""},
        "disk": {"total_bytes": 1, "free_bytes": 1, "has_room": True},
        "slots": [{"name": "gpu-0", "kind": "gpu", "gpu": "GPU-0"}],
        "gpus": [{"uuid": "GPU-0", "name": "A card", "memory_bytes": 1}],
        "labels": {"site": "north"},
        "images": ["echo:1"],
        "leaving": True,
    }
    worker = Api(server.private_url, server.key("worker"))
    answer = worker.post(f"/v1/nodes/{name}/report", json=report)
    assert answer.status_code == 200, answer.text
    return name


@pytest.fixture
def statuses() -> Iterator[set[int]]:
    """The statuses that one operation was answered with; one that was never served has not been tested."""
    seen: set[int] = set()
    yield seen
    assert any(status < 300 for status in seen), seen


def test_document_that_is_fuzzed_is_the_one_that_is_served(fuzzed_server: Server) -> None:
    # when
    served = fuzzed_server.admin.get("/openapi.json").json()
    # then
    assert served == _described()


@fuzzed.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_described(
    case: schemathesis.Case, fuzzed_server: Server, real_ids: dict[str, str], statuses: set[int]
) -> None:
    # given
    number = next(numbers)
    for values in (case.path_parameters, case.query, case.body):
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, str):
                values[name] = {**real_ids, NEW_MODEL: f"fuzzed-{number}"}.get(value, value)
    # The fuzzer loves the same key, with which only the first request would get anywhere.
    key = case.headers.get("Idempotency-Key")
    if key and len(key) < 200:
        case.headers["Idempotency-Key"] = f"{key}-{number}"
    # when
    answer = case.call(
        base_url=fuzzed_server.url,
        headers={"Authorization": f"Bearer {fuzzed_server.key('admin')}"},
        timeout=30,
    )
    # then
    statuses.add(answer.status_code)
    case.validate_response(answer, checks=CHECKS)
