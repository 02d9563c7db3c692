"""The store's own configuration: who waits for whom, and for how long."""

from __future__ import annotations

import configparser
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from private_api.blobs.s3_connections import STALL_SECONDS

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def configuration() -> dict[str, Callable[..., str]]:
    """What the module in the image offers; it is no part of any package."""
    return runpy.run_path(str(ROOT / "images" / "s3" / "configuration.py"))


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


def test_an_upload_waits_for_its_listing_and_no_longer_than_its_client_and_the_proxy(
    configuration: dict[str, Callable[..., str]],
) -> None:
    store = parsed(configuration["storage_server"]("object"))["app:object-server"]
    proxy = parsed(configuration["proxy_server"](8333, {}))["app:proxy-server"]
    listed = float(store["container_update_timeout"])
    assert 10 <= listed < STALL_SECONDS
    assert listed < float(proxy["node_timeout"])


@pytest.mark.parametrize(
    ("kind", "section"),
    [
        ("object", "app:object-server"),
        ("object", "object-updater"),
        ("container", "app:container-server"),
        ("account", "app:account-server"),
    ],
)
def test_the_servers_are_as_patient_with_each_other_as_the_proxy_is_with_them(
    configuration: dict[str, Callable[..., str]], kind: str, section: str
) -> None:
    server = parsed(configuration["storage_server"](kind))[section]
    proxy = parsed(configuration["proxy_server"](8333, {}))["app:proxy-server"]
    for limit in ("conn_timeout", "node_timeout"):
        assert float(server[limit]) == float(proxy[limit]) >= 10
