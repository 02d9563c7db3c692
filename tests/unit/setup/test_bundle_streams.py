"""Archives on their way: what an engine saves, in both of its forms, and what is made for one to load."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from setup.bundle import complete, release, saved
from setup.bundle.archive import Archive
from setup.console import SetupError


def tar_of(files: dict[str, bytes], links: dict[str, str] | None = None) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    packed.seek(0)
    return packed


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


LOW, HIGH = (tar_of({name: name.encode() * 5000}).getvalue() for name in ("low", "high"))
CONFIGURATION = json.dumps({"rootfs": {"diff_ids": [digest_of(LOW), digest_of(HIGH)]}}).encode()


def classic() -> io.BytesIO:
    """As engines before 25 save it: a directory for each layer, doubles as links."""
    manifest = [{"Config": "c.json", "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar"][:2]}]
    files = {
        "1/layer.tar": LOW, "1/VERSION": b"1.0", "1/json": b'{"id": "1"}', "2/layer.tar": HIGH,
        "c.json": CONFIGURATION, "manifest.json": json.dumps(manifest).encode(),
    }  # fmt: skip
    return tar_of(files, {"3/layer.tar": "../1/layer.tar"})


def layout() -> io.BytesIO:
    """As later ones do: blobs by their hashes, here one of them compressed."""
    packed = gzip.compress(HIGH)
    names = [f"blobs/sha256/{digest_of(content)[7:]}" for content in (CONFIGURATION, LOW, packed)]
    manifest = [{"Config": names[0], "Layers": names[1:]}]
    files = dict(zip(names, (CONFIGURATION, LOW, packed), strict=True))
    return tar_of(
        {**files, "oci-layout": b"{}", "index.json": b"{}", "manifest.json": json.dumps(manifest).encode()}
    )


@pytest.mark.parametrize("form", [classic, layout])
def test_each_layer_is_seen_once_and_without_its_compression(form: object, tmp_path: Path) -> None:
    seen: dict[str, bytes] = {}

    def take(digest: str, spool: Path) -> None:
        assert digest not in seen
        seen[digest] = spool.read_bytes()

    with tarfile.open(fileobj=form(), mode="r|") as stream:  # type: ignore[operator]
        [image] = saved.gather(stream, tmp_path / "spool", take)
    assert seen == {digest_of(LOW): LOW, digest_of(HIGH): HIGH}
    assert image.layers == (digest_of(LOW), digest_of(HIGH))
    assert image.id == digest_of(CONFIGURATION)


def test_a_stream_that_lacks_something_is_refused(tmp_path: Path) -> None:
    for files in (
        {"c.json": CONFIGURATION},
        {"c.json": CONFIGURATION, "manifest.json": b'[{"Config": "c.json"}]'},
    ):
        with (
            tarfile.open(fileobj=tar_of(files), mode="r|") as stream,
            pytest.raises(SetupError, match="engine saved"),
        ):
            saved.gather(stream, tmp_path / "spool", lambda *_: None)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that brings the higher layer only."""
    low, high = digest_of(LOW)[7:], digest_of(HIGH)[7:]
    images = tmp_path / "bundle" / "images"
    (images / "layers").mkdir(parents=True)
    (tmp_path / "bundle" / "release").mkdir()
    (images / "layers" / f"{high}.tar.gz").write_bytes(gzip.compress(HIGH))
    (images / "c.json").write_bytes(CONFIGURATION)
    layers = [f"layers/{name}.tar.gz" for name in (low, high)]
    (images / "manifest.json").write_text(
        json.dumps([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": layers}])
    )
    packed = digest_of(gzip.compress(LOW, mtime=0))[7:]
    (tmp_path / "bundle" / "release" / "needed").write_text(f"sha256:{low} {packed}\n")
    return tmp_path / "bundle"


@pytest.mark.parametrize("content", [LOW, gzip.compress(LOW, mtime=0)], ids=["plain", "as it came"])
def test_what_the_engine_has_completes_what_a_bundle_brings(bundle: Path, content: bytes) -> None:
    loaded = io.BytesIO()
    had = tar_of({"9/layer.tar": content, "8/layer.tar": b"of no use", "manifest.json": b"[]"})
    assert complete.complete(bundle, had, loaded) == ""
    loaded.seek(0)
    with tarfile.open(fileobj=loaded) as archive:
        read = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    [image] = json.loads(read["manifest.json"])
    assert read[image["Layers"][0]] == content
    assert gzip.decompress(read[image["Layers"][1]]) == HIGH
    assert read[image["Config"]] == CONFIGURATION


def test_what_cannot_be_completed_has_no_manifest_and_so_is_not_loaded(bundle: Path) -> None:
    loaded = io.BytesIO()
    assert "1 layers" in complete.complete(bundle, tar_of({"8/layer.tar": HIGH}), loaded)
    loaded.seek(0)
    with tarfile.open(fileobj=loaded) as archive:
        assert "manifest.json" not in archive.getnames()


def test_an_archive_ends_with_the_hashes_of_all_that_is_in_it(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_bytes(LOW)
    target = tmp_path / "x.tar"
    archive = Archive(target, "top", 1_700_000_000)
    archive.add("install", b"#!/bin/sh\n", 0o755)
    first = archive.add_layer("images/1.tar.gz", spool)
    assert not target.exists()
    archive.finish("{}")
    archive.close()
    # Then any tool can check it, and the same layer is the same file at another time
    subprocess.run(["tar", "-C", tmp_path, "-xf", target], check=True)
    subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=tmp_path / "top", check=True, capture_output=True
    )
    assert (tmp_path / "top" / "install").stat().st_mode & 0o111
    again = Archive(tmp_path / "y.tar", "top", 1_800_000_000)
    assert again.add_layer("images/1.tar.gz", spool) == first
    again.close()
    # And one that was not finished leaves nothing
    assert not (tmp_path / "y.tar").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"spool", "top", "x.tar"}
    with tarfile.open(target) as packed:
        assert packed.getnames()[-2:] == ["top/manifest.json", "top/SHA256SUMS"]


def test_certificates_that_were_added_are_counted() -> None:
    one, two = (
        b"-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n" % name for name in (b"a", b"b")
    )
    assert release.added_certificates([]) == 0
    assert release.added_certificates([one]) == 0
    assert release.added_certificates([one, one + two + one]) == 1


def test_an_earlier_bundle_is_named_in_any_of_three_ways(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "none.tar", "is no file"),
        (tmp_path / "empty", r"no file"),
        (tmp_path, "no file"),
    ):
        with pytest.raises(SetupError, match=words):
            release.read_base(path)
    (tmp_path / "x.tar").write_bytes(tar_of({"top/install": b""}).getvalue())
    with pytest.raises(SetupError, match="not a whole one"):
        release.read_base(tmp_path / "x.tar")
    (tmp_path / "y.tar").write_bytes(b"no tar at all, though long enough to be taken for one" * 100)
    with pytest.raises(SetupError, match="cannot be read"):
        release.read_base(tmp_path / "y.tar")
