"""When an image is built again, and with which of the machine's settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from setup.host.machine import Machine
from setup.images.base_image import Bootstrap, how_to_bootstrap, machine_ca_bundle
from setup.images.images import (
    Recipe,
    build_network,
    fingerprint,
    forwarded_settings,
    read_context,
    withheld_credentials,
)

RECIPE = Recipe("t:1", "a test", {"Dockerfile": b"FROM scratch"}, "p:1", arguments={"BASE": "p:1"})


def test_the_same_recipe_has_the_same_fingerprint() -> None:
    assert fingerprint(RECIPE, "sha256:1") == fingerprint(replace(RECIPE), "sha256:1")


@pytest.mark.parametrize(
    "changed",
    [
        replace(RECIPE, context={"Dockerfile": b"FROM other"}),
        replace(RECIPE, context={"Dockerfile": b"FROM scratch", "more": b""}),
        replace(RECIPE, target="train"),
        replace(RECIPE, arguments={"BASE": "q:1"}),
    ],
)
def test_whatever_decides_the_image_changes_the_fingerprint(changed: Recipe) -> None:
    assert fingerprint(changed, "sha256:1") != fingerprint(RECIPE, "sha256:1")


def test_a_new_parent_changes_the_fingerprint_and_a_proxy_does_not() -> None:
    behind_proxy = replace(RECIPE, arguments={"BASE": "p:1", "HTTPS_PROXY": "http://proxy.example:3128"})
    assert fingerprint(RECIPE, "sha256:2") != fingerprint(RECIPE, "sha256:1")
    assert fingerprint(behind_proxy, "sha256:1") == fingerprint(RECIPE, "sha256:1")


def test_proxies_and_indexes_are_forwarded_but_local_paths_and_strangers_are_not() -> None:
    environment = {
        "HTTPS_PROXY": "http://proxy.example:3128",
        "NO_PROXY": "localhost",
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "PIP_EXTRA_INDEX_URL": "file:///srv/wheels",
        "HTTP_PROXY": "",
        "SECRET": "s",
    }
    assert forwarded_settings(environment) == {
        "HTTPS_PROXY": "http://proxy.example:3128",
        "NO_PROXY": "localhost",
        "PIP_INDEX_URL": "https://mirror.example/simple",
    }


def test_no_build_is_told_the_password_of_an_index() -> None:
    environment = {
        "PIP_INDEX_URL": "https://anna:s3cret@mirror.example:8443/simple/",
        "PIP_EXTRA_INDEX_URL": "https://one.example/simple https://token@two.example/simple file:///srv",
    }
    assert forwarded_settings(environment) == {
        "PIP_INDEX_URL": "https://mirror.example:8443/simple/",
        "PIP_EXTRA_INDEX_URL": "https://one.example/simple https://two.example/simple",
    }
    assert withheld_credentials(environment) == ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"]
    assert withheld_credentials({"PIP_INDEX_URL": "https://mirror.example/simple"}) == []


def test_a_proxy_on_loopback_is_reached_through_the_hosts_network() -> None:
    assert build_network({"HTTP_PROXY": "http://127.0.0.1:3128"}) == "host"
    assert build_network({"HTTP_PROXY": "http://proxy.example:3128", "BASE": "a:1"}) is None


def test_a_context_leaves_out_what_dockerignore_names_and_caches(tmp_path: Path) -> None:
    # Given a folder with a .dockerignore
    (tmp_path / "sub" / "__pycache__").mkdir(parents=True)
    for name in ("Dockerfile", "README.md", "sub/model.py", "sub/__pycache__/model.pyc"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".dockerignore").write_text("README.md\n")
    # When it is read, then only what belongs into the build is there.
    assert set(read_context(tmp_path)) >= {"Dockerfile", "sub/model.py"}
    assert not {"README.md", "sub/__pycache__/model.pyc"} & set(read_context(tmp_path))


def test_the_named_ca_bundle_wins_and_a_missing_one_is_passed_over(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(b"PEM")
    environment = {"PIP_CERT": str(tmp_path / "missing.pem"), "SSL_CERT_FILE": str(bundle)}
    assert machine_ca_bundle(environment) == b"PEM"


@pytest.mark.parametrize(
    ("machine", "has_mmdebstrap", "has_sources", "expected"),
    [
        (Machine("Linux", "debian", "bookworm", True, True, False), True, True, Bootstrap.READY),
        (Machine("Linux", "ubuntu", "noble", True, True, True), False, True, Bootstrap.INSTALL),
        (Machine("Linux", "ubuntu", "noble", True, True, True), True, False, Bootstrap.IMPOSSIBLE),
        (Machine("Linux", "debian", "bookworm", False, True, True), False, True, Bootstrap.IMPOSSIBLE),
        (Machine("Darwin", "", "", False, False, False), False, False, Bootstrap.IMPOSSIBLE),
    ],
)
def test_where_a_system_can_be_bootstrapped(
    machine: Machine, has_mmdebstrap: bool, has_sources: bool, expected: Bootstrap
) -> None:
    found = how_to_bootstrap(machine, has_mmdebstrap=has_mmdebstrap, has_sources=has_sources)
    assert found is expected
