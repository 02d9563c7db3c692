"""Records of domains on the disk."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from proxy.names import TlsKind
from proxy.records import Domain, RecordError, RecordStore

DOMAINS = [
    Domain(name="*.server.example", tls=TlsKind.FILES, certificate="x"),
    Domain(name="10.0.0.5", tls=TlsKind.INTERNAL),
    Domain(name="server.example", tls=TlsKind.ACME, email="a@b.c"),
]


def test_what_was_written_is_read_and_what_was_removed_is_gone(tmp_path: Path) -> None:
    # given
    store = RecordStore(tmp_path / "state")
    for domain in DOMAINS:
        store.write(domain)

    # when / then
    assert store.read().domains == {domain.name: domain for domain in DOMAINS}
    store.remove("10.0.0.5")
    store.remove("10.0.0.5")
    assert RecordStore(tmp_path / "state").read().domains.keys() == {"*.server.example", "server.example"}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", '{"version": 2, "name": "a.example", "tls": "acme"}',
        '{"version": 1, "name": "a.example", "tls": "magic"}', '{"version": 1, "name": 5, "tls": "acme"}',
        '{"version": 1, "name": "A.example", "tls": "acme"}', '{"version": 1, "name": "a/b", "tls": "acme"}',
    ],
)  # fmt: skip
def test_a_damaged_record_costs_no_other(tmp_path: Path, text: str) -> None:
    # given
    store = RecordStore(tmp_path)
    store.write(DOMAINS[2])
    (tmp_path / "domains/damaged.json").write_text(text)

    # when
    records = store.read()

    # then
    assert list(records.domains) == ["server.example"]
    assert len(records.damaged) == 1
    assert "damaged.json" in records.damaged[0]


def test_certificates_are_kept_for_their_owner_alone_and_swept(tmp_path: Path) -> None:
    # given
    (tmp_path / "given.crt").write_text("certificate")
    (tmp_path / "given.key").write_text("key")
    (tmp_path / "given.key").chmod(0o644)
    store = RecordStore(tmp_path / "state")
    pair = tmp_path / "given.crt", tmp_path / "given.key"

    # when
    old = store.keep_certificate("*.server.example", *pair)
    # The same certificate, now with those that lead from it to a root.
    (tmp_path / "given.crt").write_text("certificate, intermediate")
    new = store.keep_certificate("*.server.example", *pair)
    store.sweep({"x": Domain(name="*.server.example", tls=TlsKind.FILES, certificate=new)})

    # then
    assert old != new
    assert [path.exists() for path in store.certificate_paths(old)] == [False, False]
    assert [path.read_text() for path in store.certificate_paths(new)] == ["certificate, intermediate", "key"]
    assert {path.stat().st_mode & 0o777 for path in store.certificate_paths(new)} == {0o600}
    assert (tmp_path / "state/certificates").stat().st_mode & 0o777 == 0o700


def test_one_changes_at_a_time(tmp_path: Path) -> None:
    # given
    order: list[str] = []

    def change() -> None:
        with RecordStore(tmp_path).locked():
            order.append("second")

    # when
    with RecordStore(tmp_path).locked():
        thread = threading.Thread(target=change)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(10)

    # then
    assert order == ["first", "second"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    # given
    (tmp_path / "file").touch()

    # when / then
    with pytest.raises(RecordError, match="file/state"):
        RecordStore(tmp_path / "file/state")
