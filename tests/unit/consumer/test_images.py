"""Which image runs, and what a failed pull means."""

from __future__ import annotations

from dataclasses import replace
from threading import Event

import pytest

from consumer.node.images import pull_failure, resolve_image, resolved, tagged
from consumer.outside.engine import LocalImage
from consumer.outside.errors import PreventedError
from contracts.messages import ImageSpec, PullPolicy
from contracts.reasons import ReasonCode
from tests.unit.consumer.fake_engine import FakeEngine

SPEC = ImageSpec(tag="repo/model:1", image_id=None, digest=None, pull_policy=PullPolicy.IF_MISSING)
ONE, OTHER = LocalImage(image_id="sha256:1"), LocalImage(image_id="sha256:2")


def resolve(engine: FakeEngine, spec: ImageSpec) -> LocalImage:
    def pull(reference: str) -> None:
        engine.pull_image(reference, Event())

    return resolve_image(engine, spec, pulling=lambda: None, pull=pull)


def test_a_local_tag_wins() -> None:
    engine = FakeEngine(images={"repo/model:1": ONE})
    assert resolve(engine, SPEC) == ONE
    assert engine.pulled == []


def test_the_pinned_id_wins_over_the_tag() -> None:
    engine = FakeEngine(images={"repo/model:1": OTHER, "sha256:1": ONE})
    assert resolve(engine, replace(SPEC, image_id="sha256:1")) == ONE


def test_what_is_missing_is_pulled_by_the_pinned_digest() -> None:
    digest = "repo/model@sha256:d"
    engine = FakeEngine(registry={digest: ONE})
    assert resolve(engine, replace(SPEC, image_id="sha256:1", digest=digest)) == ONE
    assert engine.pulled == [digest]


def test_always_pulls_the_tag_although_the_image_is_here() -> None:
    engine = FakeEngine(images={"repo/model:1": ONE}, registry={"repo/model:1": OTHER})
    assert resolve(engine, replace(SPEC, pull_policy=PullPolicy.ALWAYS)) == OTHER


def test_a_local_build_that_was_replaced_is_told() -> None:
    engine = FakeEngine(images={"repo/model:1": OTHER})
    with pytest.raises(PreventedError) as caught:
        resolve(engine, replace(SPEC, image_id="sha256:1"))
    assert caught.value.code is ReasonCode.IMAGE_UNAVAILABLE


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (
            "pull access denied for x, repository does not exist or may require 'docker login'",
            "image_unavailable",
        ),
        ("manifest for x:1 not found: manifest unknown: manifest unknown", "image_unavailable"),
        ("invalid reference format", "image_unavailable"),
        ("unauthorized: authentication required", "image_unavailable"),
        (
            'Get "https://registry.example.org/v2/": dial tcp: lookup registry.example.org: no such host',
            "pull_failed",
        ),
        (
            "Get https://r/v2/: net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
            "pull_failed",
        ),
        ("dial tcp 127.0.0.1:1: connect: connection refused", "pull_failed"),
        ("toomanyrequests: You have reached your pull rate limit", "pull_failed"),
        ("x509: certificate signed by unknown authority", "pull_failed"),
        ("something else entirely", "pull_failed"),
        ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "node_full"),
    ],
)
def test_a_refused_pull_is_the_models_fault_or_ours(words: str, code: str) -> None:
    failure = pull_failure("repo/model:1", words, "repo/model:1")
    assert failure.code == code
    assert "repo/model:1" in failure.sentence


def test_an_image_that_the_registry_does_not_have_is_the_models_fault() -> None:
    # Given an engine that answers a pull with 404, as it does where the registry says "manifest unknown"
    with pytest.raises(PreventedError) as caught:
        resolve(FakeEngine(), SPEC)
    # Then nobody has to try it again
    assert caught.value.code is ReasonCode.IMAGE_UNAVAILABLE


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("geofence:1", "pull access denied for geofence, repository does not exist"),
        ("r:5000/team/timeout:1", "manifest for r:5000/team/timeout:1 not found: manifest unknown"),
        ("r:5000/x509:eof", "Get https://r:5000/v2/x509/manifests/eof: unauthorized"),
    ],
)
def test_what_an_image_is_called_is_not_taken_for_what_is_said_of_it(tag: str, words: str) -> None:
    assert pull_failure(tag, words, tag).code is ReasonCode.IMAGE_UNAVAILABLE


def test_a_short_name_hides_nothing_of_what_is_said() -> None:
    assert pull_failure("x", "x509: unknown authority; x not found", "x:latest").code == "pull_failed"


def test_the_digest_is_that_of_the_tags_own_repository() -> None:
    image = LocalImage(image_id="sha256:1", digests=("mirror/x@sha256:a", "localhost:5000/x@sha256:b"))
    assert resolved(image, "localhost:5000/x:1").digest == "localhost:5000/x@sha256:b"
    assert resolved(ONE, "x").digest is None


@pytest.mark.parametrize(
    ("reference", "full"),
    [("x", "x:latest"), ("x:1", "x:1"), ("host:5000/x", "host:5000/x:latest"), ("x@sha256:a", "x@sha256:a")],
)
def test_a_missing_tag_means_latest(reference: str, full: str) -> None:
    assert tagged(reference) == full
