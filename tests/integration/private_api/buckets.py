"""Blob stores for tests: one in a bucket of its own on a real S3 store, and the settings that lead there."""

import secrets

from private_api.blobs.choice import open_blob_store
from private_api.blobs.s3 import S3BlobStore
from private_api.blobs.s3_bucket import S3Address, S3Bucket
from private_api.settings import Settings
from tests.rig.parts import Part


def s3_settings(part: Part, **more) -> dict:
    """What Settings needs to use a new bucket of ``part``."""
    return {
        "blob_store": "s3",
        "s3_endpoint": part.url,
        "s3_bucket": f"test-{secrets.token_hex(8)}",
        "s3_access_key": part.user,
        "s3_secret_key": part.password,
        **more,
    }


def make_bucket(settings: dict) -> None:
    """Make the bucket that ``settings`` name, and nothing more."""
    address = S3Address(
        endpoint=settings["s3_endpoint"].removeprefix("http://"),
        secure=False,
        region="us-east-1",
        bucket=settings["s3_bucket"],
        access_key=settings["s3_access_key"],
        secret_key=settings["s3_secret_key"],
    )
    S3Bucket(address, threads=1, stall_seconds=10).make()


def s3_store(part: Part, **more) -> S3BlobStore:
    """A store in a new bucket."""
    store = open_blob_store(Settings(**s3_settings(part, **more)))
    assert isinstance(store, S3BlobStore)
    store.prepare()
    return store


def store_bytes(store, key, data, *, piece_bytes=300_000):
    """Store ``data`` under ``key`` in pieces, as a request's body comes."""
    with store.begin(key, declared_bytes=len(data)) as writer:
        for offset in range(0, len(data), piece_bytes):
            writer.write(data[offset : offset + piece_bytes])
        return writer.finish()
