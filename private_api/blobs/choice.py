"""Which blob store the settings ask for, and whether it can be used; asked at the start."""

from __future__ import annotations

from urllib.parse import urlsplit

from private_api.blobs.directory import DirectoryBlobStore
from private_api.blobs.s3 import S3BlobStore
from private_api.blobs.s3_bucket import S3Address, S3RefusedError, is_bucket_name
from private_api.blobs.store import BlobStore, BlobStoreUnavailableError
from private_api.patience import StartError, wait_for
from private_api.settings import Settings, SettingsError

# What a store says when no waiting will help, and the variables that are to blame.
_BLAMED = {
    "S3_ACCESS_KEY and S3_SECRET_KEY": {
        "SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidSecurity", "InvalidToken", "ExpiredToken",
        "TokenRefreshRequired", "NotSignedUp",
    },
    "S3_ACCESS_KEY (it may not use the bucket) or S3_BUCKET": {
        "AccessDenied", "AllAccessDisabled", "AccountProblem", "BucketAlreadyExists", "InvalidBucketName",
        "TooManyBuckets",
    },
    "S3_REGION": {
        "AuthorizationHeaderMalformed", "PermanentRedirect", "Redirect", "IllegalLocationConstraintException",
        "InvalidLocationConstraint", "InvalidRegion",
    },
    "the clock of this machine or of the store": {"RequestTimeTooSkewed", "RequestExpired"},
}  # fmt: skip


def open_blob_store(settings: Settings) -> BlobStore:
    """The store that the settings ask for; an S3 store is not asked for anything yet.

    Raises ``SettingsError`` naming the variable that is wrong.
    """
    if settings.blob_store == "directory":
        if settings.blob_public_url:
            raise SettingsError("BLOB_PUBLIC_URL needs BLOB_STORE=s3: a directory has no address of its own")
        return DirectoryBlobStore(settings.blob_directory, min_free_bytes=settings.min_free_bytes)
    for name, value in (("S3_ACCESS_KEY", settings.s3_access_key), ("S3_SECRET_KEY", settings.s3_secret_key)):
        if not value:
            raise SettingsError(f"{name} (or {name}_FILE) must be set when BLOB_STORE is s3")
    if not is_bucket_name(settings.s3_bucket):
        raise SettingsError(
            f"S3_BUCKET must be a name that S3 allows for a bucket, not {settings.s3_bucket!r}"
        )
    public = settings.blob_public_url
    return S3BlobStore(
        _address(settings, "S3_ENDPOINT", settings.s3_endpoint),
        public=_address(settings, "BLOB_PUBLIC_URL", public) if public else None,
        most_bytes=max(settings.max_input_bytes, settings.max_content_bytes),
        threads=settings.threads,
    )


def prepare_blob_store(settings: Settings) -> None:
    """Wait until the store answers, and prepare it; raises ``StartError`` with one line for the operator."""
    store = open_blob_store(settings)
    if not isinstance(store, S3BlobStore):
        return

    def prepare() -> None:
        try:
            store.prepare()
        except S3RefusedError as error:
            for variables, codes in _BLAMED.items():
                if error.code in codes:
                    raise StartError(f"{variables} must be wrong: {error}") from error
            if error.code.startswith("HTTP 4"):
                raise StartError(f"S3_ENDPOINT must be wrong: {error}") from error
            raise

    what = f"the blob store ({settings.s3_endpoint}, S3_ENDPOINT)"
    wait_for(what, prepare, away=BlobStoreUnavailableError, patience_seconds=settings.start_patience_seconds)


def _address(settings: Settings, name: str, url: str) -> S3Address:
    parts = urlsplit(url)
    try:
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_usable = False
    if not is_usable or parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc:
        raise SettingsError(f"{name} must be http://HOST[:PORT] or https://HOST[:PORT] and nothing more")
    return S3Address(
        endpoint=parts.netloc,
        secure=parts.scheme == "https",
        region=settings.s3_region,
        bucket=settings.s3_bucket,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
    )
