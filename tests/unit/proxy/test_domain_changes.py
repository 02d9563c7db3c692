"""Changes of domains are whole or not at all, whatever comes in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.admin_api import AdminApi
from proxy.domains import Domains, Wish
from proxy.names import TlsKind
from proxy.records import Domain, RecordError, RecordStore
from proxy.settings import Settings
from tests.integration.proxy.own_certificates import make_pair

INTERNAL = Wish(tls=TlsKind.INTERNAL)


class RememberingCaddy(AdminApi):
    """Takes over every configuration."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1:1")
        self.config: dict[str, Any] = {}

    def load(self, config: dict[str, Any]) -> None:
        self.config = config

    def running(self) -> dict[str, Any]:
        return self.config

    @property
    def names(self) -> set[str]:
        return set(self.config["apps"]["tls"]["certificates"]["automate"])


@pytest.fixture
def caddy() -> RememberingCaddy:
    return RememberingCaddy()


@pytest.fixture
def domains(tmp_path: Path, caddy: RememberingCaddy) -> Domains:
    store = RecordStore(tmp_path / "state")
    domains = Domains(Settings(directory=tmp_path / "state"), caddy, store, lambda _sentence: None)
    domains.apply()
    return domains


def put_in_the_way(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "in-the-way").touch()


def recorded(tmp_path: Path) -> dict[str, Domain]:
    return RecordStore(tmp_path / "state").read().domains


def test_a_configuration_that_cannot_be_kept_leaves_no_record(
    tmp_path: Path, caddy: RememberingCaddy, domains: Domains
) -> None:
    # given
    domains.add("kept.example", INTERNAL)
    put_in_the_way(tmp_path / "state/caddy.json")

    # when / then
    for change in (
        lambda: domains.add("x.example", INTERNAL),
        lambda: domains.remove("kept.example"),
    ):
        with pytest.raises(RecordError, match=r"caddy\.json cannot be written"):
            change()
        assert recorded(tmp_path).keys() == {"kept.example"}
        assert caddy.names == {"localhost", "kept.example"}


def test_a_renewal_that_cannot_be_kept_costs_nothing_of_what_was_there(
    tmp_path: Path, domains: Domains
) -> None:
    # given
    old, new = (make_pair(tmp_path, "DNS:x.example", stem=stem) for stem in ("old", "new"))
    domains.add("x.example", Wish(certificate=old[0], key=old[1]))
    put_in_the_way(tmp_path / "state/caddy.json")

    # when
    with pytest.raises(RecordError):
        domains.change("x.example", Wish(certificate=new[0], key=new[1]))

    # then
    store = RecordStore(tmp_path / "state")
    stem = store.read().domains["x.example"].certificate
    assert stem is not None
    assert store.certificate_paths(stem)[0].read_text() == old[0].read_text()


def test_a_record_that_cannot_be_removed_keeps_its_domain(
    tmp_path: Path, caddy: RememberingCaddy, domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    domains.add("x.example", INTERNAL)
    before = (tmp_path / "state/caddy.json").read_text()

    def refuse(_path: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    # when
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(RecordError, match=r"x\.example\.json cannot be removed"):
            domains.remove("x.example")

    # then
    assert recorded(tmp_path).keys() == {"x.example"}
    assert caddy.names == {"localhost", "x.example"}
    assert (tmp_path / "state/caddy.json").read_text() == before


def test_a_damaged_record_keeps_its_key(tmp_path: Path, domains: Domains) -> None:
    # given a record that a later version of this wrote
    pair = make_pair(tmp_path, "DNS:x.example")
    domains.add("x.example", Wish(certificate=pair[0], key=pair[1]))
    record = tmp_path / "state/domains/x.example.json"
    readable = record.read_text()
    record.write_text(json.dumps({**json.loads(readable), "version": 2}))

    # when
    domains.add("other.example", INTERNAL)
    domains.remove("other.example")

    # then
    record.write_text(readable)
    store = RecordStore(tmp_path / "state")
    paths = store.certificate_paths(store.read().domains["x.example"].certificate or "")
    assert [path.read_text() for path in paths] == [path.read_text() for path in pair]
