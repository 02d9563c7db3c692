"""What an image holds, by what package managers left in its layers, and the bill of materials made of it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from setup.bundle import sbom, software
from setup.bundle.manifest import Image, Manifest
from setup.bundle.software import Package, Traces
from tests.rig.spdx import check_spdx

DPKG = b"""\
Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9+deb12u10
Description: GNU C Library
 Version: 0 of a continued line

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1.0
"""
DEBIAN = b'PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\nVERSION_ID="12"\n'
APK = b"C:Q1abc=\nP:musl\nV:1.2.5-r9\nA:x86_64\nL:MIT\nT:the C library\n\nP:busybox\nV:1.37.0-r12\nA:x86_64\n"
METADATA = b"""\
Metadata-Version: 2.4
Name: Typing_Extensions
Version: 4.12.2
License-Expression: PSF-2.0

Text
Name: no
"""
SITE = "opt/python/lib/python3.11/site-packages/typing_extensions-4.12.2.dist-info/METADATA"


def layer(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("prefix", ["", "./", "/"])
def test_a_layer_is_searched_for_what_package_managers_wrote(tmp_path: Path, mode: str, prefix: str) -> None:
    files = {"var/lib/dpkg/status": DPKG, "etc/os-release": DEBIAN, SITE: METADATA, "etc/passwd": b"root"}
    found = software.read_layer(
        layer(tmp_path / "l", {prefix + name: text for name, text in files.items()}, mode)
    )
    assert found.files.keys() == files.keys() - {"etc/passwd"}


def test_a_higher_layer_has_the_last_word(tmp_path: Path) -> None:
    low = software.read_layer(
        layer(tmp_path / "low", {"a/b.dist-info/METADATA": b"1", "c/d.dist-info/METADATA": b"1"})
    )
    high = software.read_layer(
        layer(
            tmp_path / "high",
            {"a/.wh.b.dist-info": b"", "c/d.dist-info/METADATA": b"2", "e/.wh..wh..opq": b""},
        )
    )
    below = Traces({"e/f.dist-info/METADATA": b"1"}, frozenset(), frozenset())
    assert software.overlay([below, low, high]) == {"c/d.dist-info/METADATA": b"2"}


def test_packages_are_named_by_their_urls() -> None:
    debian = software.packages({"var/lib/dpkg/status": DPKG, "usr/lib/os-release": DEBIAN, SITE: METADATA})
    assert debian == [
        Package("Typing_Extensions", "4.12.2", "pkg:pypi/typing-extensions@4.12.2", "PSF-2.0"),
        Package(
            "libc6", "2.36-9+deb12u10", "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12"
        ),
    ]
    alpine = software.packages(
        {"lib/apk/db/installed": APK, "etc/os-release": b"ID=alpine\nVERSION_ID=3.21.2\n"}
    )
    assert [package.purl for package in alpine] == [
        "pkg:apk/alpine/busybox@1.37.0-r12?arch=x86_64&distro=alpine-3.21.2",
        "pkg:apk/alpine/musl@1.2.5-r9?arch=x86_64&distro=alpine-3.21.2",
    ]
    assert alpine[1].license == "MIT"


def test_the_bill_of_materials_is_spdx_and_says_which_image_holds_what() -> None:
    images = tuple(
        Image(f"ours/{name}:1", f"sha256:{name * 64}", "2026-11-01T00:00:00Z", ()) for name in "ab"
    )
    release = Manifest("2.0.0", "2026-11-21T15:00:00Z", "amd64", "local", "ours/setup:1", images)
    shared = Package("libc6", "2.36", "pkg:deb/debian/libc6@2.36")
    odd = Package("odd", "1", "pkg:pypi/odd@1", "a licence in no list, at length")
    # When
    document = sbom.document(release, {"ours/a:1": [shared, odd], "ours/b:1": [shared]})
    # Then
    check_spdx(json.loads(json.dumps(document)))
    by_name = {package["name"]: package for package in document["packages"]}
    contained = [
        r for r in document["relationships"] if r["relatedSpdxElement"] == by_name["libc6"]["SPDXID"]
    ]
    assert {r["spdxElementId"] for r in contained} == {"SPDXRef-image-ours-a-1", "SPDXRef-image-ours-b-1"}
    # What is no SPDX expression is not passed off as one.
    assert by_name["odd"]["licenseDeclared"] == "NOASSERTION"
    # And the same release has the same document, whenever its bundle is made.
    assert sbom.document(release, {})["documentNamespace"] == document["documentNamespace"]
