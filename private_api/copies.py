"""Copies of all blobs for backups: ``python -m private_api.copies export`` writes a tar, ``import`` reads
one.

Operators' commands enter, inside the service's own container, with its settings and secrets; nothing here
serves. The tar goes through standard input and output, so that no blob touches another disk on its way. What
the database says of a blob is held against its bytes when they come back.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import sys
import tarfile
from typing import BinaryIO

from sqlalchemy import and_, func, select
from sqlalchemy.exc import SQLAlchemyError

from contracts.messages import BlobFacts
from private_api.blobs.choice import open_blob_store
from private_api.blobs.store import (
    BLOB_KINDS,
    CHUNK_BYTES,
    BlobMissingError,
    BlobStore,
    BlobStoreFullError,
    BlobStoreUnavailableError,
)
from private_api.settings import Settings, SettingsError
from private_api.start import open_database
from private_api.store.database import Database
from private_api.store.tables import model_versions, models, tasks

# The last member of a tar: without it the export was cut off.
MANIFEST = "MANIFEST.json"
# A copy may have been in other hands: what it names never leaves the store.
_KEY = re.compile(rf"(?:{'|'.join(BLOB_KINDS)})/[A-Za-z0-9_-][A-Za-z0-9._-]*")


class CopyError(Exception):
    """The copy cannot be made, or is not what it says; the sentence says why."""


def export_blobs(store: BlobStore, target: BinaryIO) -> dict[str, BlobFacts]:
    """Write every blob into a tar, with a manifest at its end; what was copied, by key.

    A blob that is deleted meanwhile is left out.
    """
    copied: dict[str, BlobFacts] = {}
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for key in store.keys_older_than(0):
            try:
                with store.open(key) as blob:
                    entry = tarfile.TarInfo(key)
                    entry.size = blob.seek(0, io.SEEK_END)
                    blob.seek(0)
                    hashed = _Hashed(blob)
                    archive.addfile(entry, hashed)
            except BlobMissingError:
                continue
            copied[key] = BlobFacts(size_bytes=entry.size, sha256=hashed.sha256)
        document = {key: facts.sha256 for key, facts in copied.items()}
        text = json.dumps({"version": 1, "blobs": document}).encode()
        last = tarfile.TarInfo(MANIFEST)
        last.size = len(text)
        archive.addfile(last, io.BytesIO(text))
    return copied


def import_blobs(store: BlobStore, source: BinaryIO) -> dict[str, BlobFacts]:
    """Store every blob of a tar under its key; raises ``CopyError`` when it is damaged or cut off."""
    stored: dict[str, BlobFacts] = {}
    manifest: dict[str, str] | None = None
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isreg() else None
                if content is not None and entry.name == MANIFEST:
                    manifest = json.loads(content.read())["blobs"]
                    continue
                if content is None or not _KEY.fullmatch(entry.name):
                    raise CopyError(f"{entry.name} is no blob")
                with store.begin(entry.name, declared_bytes=entry.size) as writer:
                    while piece := content.read(CHUNK_BYTES):
                        writer.write(piece)
                    stored[entry.name] = writer.finish()
    except (tarfile.TarError, EOFError, ValueError, KeyError) as error:
        raise CopyError(f"the copy of the blobs is damaged: {error}") from error
    if manifest is None:
        raise CopyError("the copy of the blobs was cut off: its manifest is missing")
    if wrong := sorted(
        key for key, sha256 in manifest.items() if key not in stored or stored[key].sha256 != sha256
    ):
        raise CopyError(f"{len(wrong)} blobs of the copy are not what its manifest says, {wrong[0]} for one")
    return stored


def expected_blobs(database: Database) -> dict[str, BlobFacts]:
    """What the database counts on, by key."""
    present = and_(model_versions.c.number == models.c.version, models.c.deleted_at.is_(None))
    of_models = select(
        model_versions.c.content_key, model_versions.c.content_size, model_versions.c.content_sha256
    ).join(models, models.c.id == model_versions.c.model_id)
    queries = [
        select(tasks.c.input_key, tasks.c.input_size, tasks.c.input_sha256).where(
            tasks.c.input_purged_at.is_(None)
        ),
        select(tasks.c.output_key, tasks.c.output_size, tasks.c.output_sha256).where(
            tasks.c.output_purged_at.is_(None), tasks.c.output_key.is_not(None)
        ),
        of_models.where(present, model_versions.c.content_key.is_not(None)),
    ]
    with database.read() as connection:
        return {
            key: BlobFacts(size_bytes=size, sha256=sha256)
            for query in queries
            for key, size, sha256 in connection.execute(query)
        }


def count(database: Database, store: BlobStore) -> dict[str, int]:
    """How much there is, to tell an empty installation from one with data."""
    with database.read() as connection:
        found = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (tasks, models)
        }
    return {**found, "blobs": sum(1 for _ in store.keys_older_than(0))}


def compare(expected: dict[str, BlobFacts], found: dict[str, BlobFacts]) -> dict[str, int]:
    """How many of the blobs that the database counts on are there, are not, or are others."""
    missing = [key for key in expected if key not in found]
    damaged = [key for key, facts in expected.items() if key in found and found[key].sha256 != facts.sha256]
    return {"blobs": len(found), "expected": len(expected), "missing": len(missing), "damaged": len(damaged)}


class _Hashed:
    """A file that is hashed while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def main(arguments: list[str]) -> int:
    """Do what is asked; the outcome is one line of JSON on standard error."""
    parser = argparse.ArgumentParser(prog="python -m private_api.copies", description="Copies of all blobs.")
    parser.add_argument("action", choices=["export", "import", "count"])
    action = parser.parse_args(arguments).action
    try:
        settings = Settings.from_environment(os.environ)
        database, store = open_database(settings), open_blob_store(settings)
        if action == "count":
            outcome = count(database, store)
        elif action == "export":
            outcome = compare(expected_blobs(database), export_blobs(store, sys.stdout.buffer))
        else:
            outcome = compare(expected_blobs(database), import_blobs(store, sys.stdin.buffer))
    except (
        SettingsError,
        CopyError,
        BlobStoreFullError,
        BlobStoreUnavailableError,
        SQLAlchemyError,
    ) as error:
        sys.stderr.write(f"private_api: {error}\n")
        return 1
    sys.stderr.write(json.dumps(outcome) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
