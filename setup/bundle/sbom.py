"""The software bill of materials of a release, as SPDX 2.3 in JSON. Pure.

Source of the format: SPDX specification 2.3, chapters 6 (document), 7 (package) and 11 (relationship).
Licences are said only where a package states one itself as an SPDX expression; nobody here has judged them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from setup.bundle.manifest import Image, Manifest
from setup.bundle.software import Package

FILE_NAME = "sbom.spdx.json"
_NOTHING_SAID = "NOASSERTION"
_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")


def document(manifest: Manifest, contents: Mapping[str, list[Package]]) -> dict[str, Any]:
    """The bill of materials; ``contents`` has the packages of each image by its tag."""
    release = _element("release", "inferenceserver", manifest.version, "APPLICATION")
    images = {image.tag: _image(image, manifest) for image in manifest.images}
    software = {
        package: _software(package)
        for package in sorted({package for found in contents.values() for package in found})
    }
    contained = [
        *(_relation("SPDXRef-release", "CONTAINS", image["SPDXID"]) for image in images.values()),
        *(
            _relation(images[tag]["SPDXID"], "CONTAINS", software[package]["SPDXID"])
            for tag, found in sorted(contents.items())
            for package in found
        ),
    ]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"inferenceserver-{manifest.version}",
        # Unique to this release, and the same for every bundle of it.
        "documentNamespace": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, manifest.release)}",
        "creationInfo": {
            "created": manifest.created,
            "creators": [f"Tool: inferenceserver-{manifest.version}"],
        },
        "packages": [release, *images.values(), *software.values()],
        "relationships": [_relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-release"), *contained],
    }


def _image(image: Image, manifest: Manifest) -> dict[str, Any]:
    name, _, version = image.tag.rpartition(":")
    element = _element(f"image-{_plain(image.tag)}", name, version, "CONTAINER")
    element["checksums"] = [{"algorithm": "SHA256", "checksumValue": image.id.removeprefix("sha256:")}]
    element["comment"] = f"linux/{manifest.architecture}; the checksum is that of the image's configuration"
    return element


def _software(package: Package) -> dict[str, Any]:
    # The URL tells apart what has one name in several worlds.
    element = _element(
        f"package-{uuid.uuid5(uuid.NAMESPACE_URL, package.purl)}", package.name, package.version
    )
    if _EXPRESSION.fullmatch(package.license):
        element["licenseDeclared"] = package.license
    element["externalRefs"] = [
        {
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package.purl,
        }
    ]
    return element


def _element(reference: str, name: str, version: str, purpose: str = "LIBRARY") -> dict[str, Any]:
    return {
        "SPDXID": f"SPDXRef-{reference}",
        "name": name,
        "versionInfo": version,
        "primaryPackagePurpose": purpose,
        "downloadLocation": _NOTHING_SAID,
        "filesAnalyzed": False,
        "licenseConcluded": _NOTHING_SAID,
        "licenseDeclared": _NOTHING_SAID,
        "copyrightText": _NOTHING_SAID,
    }


def _relation(whole: str, kind: str, part: str) -> dict[str, str]:
    return {"spdxElementId": whole, "relationshipType": kind, "relatedSpdxElement": part}


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text)
