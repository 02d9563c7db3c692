"""Whether a document is valid SPDX 2.3 in JSON, as far as a bill of materials of ours uses the format."""

from __future__ import annotations

from typing import Any

import jsonschema

# What SPDX 2.3 demands of a JSON document, as far as ours uses it (chapters 6, 7, 11 of the specification).
_PLAIN = {"type": "string", "minLength": 1, "pattern": "^[^\n]+$"}
_REFERENCE = {"type": "string", "pattern": "^SPDXRef-[A-Za-z0-9.-]+$"}
_PACKAGE = {
    "type": "object",
    "required": ["SPDXID", "name", "downloadLocation"],
    "additionalProperties": False,
    "properties": {
        "SPDXID": _REFERENCE,
        "name": _PLAIN,
        "versionInfo": _PLAIN,
        "primaryPackagePurpose": {"enum": ["APPLICATION", "CONTAINER", "LIBRARY"]},
        "downloadLocation": {"const": "NOASSERTION"},
        "filesAnalyzed": {"const": False},
        "licenseConcluded": _PLAIN,
        "licenseDeclared": _PLAIN,
        "copyrightText": _PLAIN,
        "comment": _PLAIN,
        "checksums": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["algorithm", "checksumValue"],
                "properties": {
                    "algorithm": {"const": "SHA256"},
                    "checksumValue": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                },
            },
        },
        "externalRefs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["referenceCategory", "referenceType", "referenceLocator"],
                "properties": {
                    "referenceCategory": {"const": "PACKAGE-MANAGER"},
                    "referenceType": {"const": "purl"},
                    "referenceLocator": {"type": "string", "pattern": "^pkg:(deb|apk|pypi)/[^ ]+@[^ ]+$"},
                },
            },
        },
    },
}
SPDX = {
    "type": "object",
    "required": [
        "spdxVersion",
        "dataLicense",
        "SPDXID",
        "name",
        "documentNamespace",
        "creationInfo",
        "packages",
    ],
    "properties": {
        "spdxVersion": {"const": "SPDX-2.3"},
        "dataLicense": {"const": "CC0-1.0"},
        "SPDXID": {"const": "SPDXRef-DOCUMENT"},
        "name": _PLAIN,
        "documentNamespace": {"type": "string", "pattern": "^[a-z][a-z0-9+.-]*:[^#]+$"},
        "creationInfo": {
            "type": "object",
            "required": ["created", "creators"],
            "properties": {
                "created": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"},
                "creators": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"pattern": "^(Tool|Organization|Person): .+$"},
                },
            },
        },
        "packages": {"type": "array", "items": _PACKAGE},
        "relationships": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["spdxElementId", "relationshipType", "relatedSpdxElement"],
                "properties": {
                    "spdxElementId": _REFERENCE,
                    "relatedSpdxElement": _REFERENCE,
                    "relationshipType": {"enum": ["DESCRIBES", "CONTAINS"]},
                },
            },
        },
    },
}


def check_spdx(document: dict[str, Any]) -> None:
    """Raise where a document is not valid SPDX 2.3, in its form or in what it refers to."""
    jsonschema.validate(document, SPDX)
    known = [package["SPDXID"] for package in document["packages"]]
    assert len(known) == len(set(known))
    for relation in document["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= {*known, "SPDXRef-DOCUMENT"}
