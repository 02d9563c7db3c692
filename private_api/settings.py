"""The private API's settings: read once from the environment at start, frozen after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contracts.announcements import BrokerAddress, broker_address
from private_api.decisions.retention import Retention
from private_api.store.database import DatabaseUrlError, database_url


class SettingsError(ValueError):
    """A setting has a value that cannot be used; the message names its variable."""


GIBIBYTE = 1024**3
# A thousand years: any later moment could not be written as a date.
_MOST_SECONDS = 1000 * 366 * 86400.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that an operator may choose about the private API. Sizes in bytes, times in seconds."""

    # Where the service listens. Loopback: only public_api, on the same machine, speaks to it.
    bind: str = "127.0.0.1:8081"
    # Kept out of what is printed: it may hold a password.
    database_url: str = field(default="sqlite:///.state/database.sqlite", repr=False)
    # Takes the place of a password in database_url; never shown.
    database_password: str = field(default="", repr=False)
    # Connections of each process to PostgreSQL at most. Requests share them, milliseconds each; one that
    # finds none free for ten seconds is asked to come back.
    database_connections: int = 32
    # `directory`, or `s3` for any S3 store.
    blob_store: str = "directory"
    blob_directory: Path = Path(".state/blobs")
    s3_endpoint: str = "http://s3:8333"
    # One installation's own: what its database does not know is deleted from it after a day.
    s3_bucket: str = "inferenceserver"
    s3_region: str = "us-east-1"
    s3_access_key: str = field(default="", repr=False)
    s3_secret_key: str = field(default="", repr=False)
    # Where people reach the S3 store themselves; empty when they do not, and all bytes pass through here.
    blob_public_url: str = ""
    # The broker that tells consumers promptly of work: amqp://user@host:5672/vhost. Empty: none; consumers
    # then wait at the claim route.
    broker_url: str = field(default="", repr=False)
    broker_password: str = field(default="", repr=False)
    # How long the service waits at its start for a database or blob store that does not answer.
    start_patience_seconds: float = 120.0
    # Holds admin.key and worker.key: made at first start, read at every other.
    key_directory: Path = Path(".state")
    # Processes that serve. Each has threads, permits and connections of its own. A bell rings within one of
    # them only: who waits in another hears of a change up to a second later.
    workers: int = 1
    # Threads of each server process, made when they are first needed. Long polls sit in them, so there are
    # many; they cost little.
    threads: int = 1344
    # Long polls held at once; further ones are answered at once, so that work never waits for watching.
    held_requests: int = 144
    # Workers that wait for a task at once; further ones are asked to come back.
    held_claims: int = 1024
    max_input_bytes: int = 20 * GIBIBYTE
    max_content_bytes: int = 100 * GIBIBYTE
    # What one zip may unpack to, and how many entries it may have.
    max_unpacked_bytes: int = 50 * GIBIBYTE
    max_zip_entries: int = 50_000
    # Whether `user` keys may register and change models.
    users_register_models: bool = False
    # A finished task's data is kept this long; 0 keeps it for ever.
    retention_seconds: float = 30 * 86400.0
    # The same for each kind of data, where it is to differ; None follows retention_seconds.
    input_retention_seconds: float | None = None
    output_retention_seconds: float | None = None
    log_retention_seconds: float | None = None
    # A task that found no worker for this long fails; 0 lets it wait for ever.
    queued_limit_seconds: float = 0.0
    # Where an uploaded input must still fit: below this much free space uploads are refused.
    min_free_bytes: int = GIBIBYTE // 2
    # Where a test wants the process to die by itself; see private_api.crashpoints.
    crash_at: str = ""
    crash_marker: Path | None = None

    @property
    def broker(self) -> BrokerAddress | None:
        """Where the broker is; null where none is configured."""
        return broker_address(self.broker_url, self.broker_password) if self.broker_url else None

    @property
    def retention(self) -> Retention:
        """How long the data of ended tasks is kept where their model does not say."""

        def seconds(own: float | None) -> float:
            return self.retention_seconds if own is None else own

        return Retention(
            input_seconds=seconds(self.input_retention_seconds),
            output_seconds=seconds(self.output_retention_seconds),
            log_seconds=seconds(self.log_retention_seconds),
        )

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> Settings:
        """Read the settings; raises ``SettingsError`` naming the first variable that is wrong."""
        read = _Reader(environment)
        default = Settings()
        settings = Settings(
            bind=read.text("PRIVATE_API_BIND", default.bind),
            database_url=read.database_url("DATABASE_URL", default.database_url),
            database_password=read.secret("DATABASE_PASSWORD"),
            database_connections=read.whole("DATABASE_CONNECTIONS", default.database_connections, least=4),
            blob_store=read.one_of("BLOB_STORE", ("directory", "s3"), default.blob_store),
            blob_directory=Path(read.text("BLOB_DIRECTORY", str(default.blob_directory))),
            s3_endpoint=read.text("S3_ENDPOINT", default.s3_endpoint),
            s3_bucket=read.text("S3_BUCKET", default.s3_bucket),
            s3_region=read.text("S3_REGION", default.s3_region),
            s3_access_key=read.secret("S3_ACCESS_KEY"),
            s3_secret_key=read.secret("S3_SECRET_KEY"),
            blob_public_url=read.text("BLOB_PUBLIC_URL", ""),
            broker_url=read.text("BROKER_URL", ""),
            broker_password=read.secret("BROKER_PASSWORD"),
            start_patience_seconds=read.seconds("START_PATIENCE_SECONDS", default.start_patience_seconds),
            key_directory=Path(read.text("KEY_DIRECTORY", str(default.key_directory))),
            workers=read.whole("PRIVATE_API_WORKERS", default.workers, least=1),
            threads=read.whole("PRIVATE_API_THREADS", default.threads, least=4),
            held_requests=read.whole("PRIVATE_API_HELD_REQUESTS", default.held_requests, least=1),
            held_claims=read.whole("PRIVATE_API_HELD_CLAIMS", default.held_claims, least=1),
            max_input_bytes=read.whole("MAX_INPUT_BYTES", default.max_input_bytes, least=1),
            max_content_bytes=read.whole("MAX_CONTENT_BYTES", default.max_content_bytes, least=1),
            max_unpacked_bytes=read.whole("MAX_UNPACKED_BYTES", default.max_unpacked_bytes, least=1),
            max_zip_entries=read.whole("MAX_ZIP_ENTRIES", default.max_zip_entries, least=1),
            users_register_models=read.flag("USERS_REGISTER_MODELS", default.users_register_models),
            retention_seconds=read.seconds("RETENTION_SECONDS", default.retention_seconds),
            input_retention_seconds=read.optional_seconds("INPUT_RETENTION_SECONDS"),
            output_retention_seconds=read.optional_seconds("OUTPUT_RETENTION_SECONDS"),
            log_retention_seconds=read.optional_seconds("LOG_RETENTION_SECONDS"),
            queued_limit_seconds=read.seconds("QUEUED_LIMIT_SECONDS", default.queued_limit_seconds),
            min_free_bytes=read.whole("MIN_FREE_BYTES", default.min_free_bytes, least=0),
            crash_at=read.text("CRASH_AT", ""),
            crash_marker=Path(environment["CRASH_MARKER"]) if environment.get("CRASH_MARKER") else None,
        )
        if settings.broker_url:
            try:
                broker_address(settings.broker_url, settings.broker_password)
            except ValueError as error:
                raise SettingsError(f"BROKER_URL {error}") from error
        if settings.held_requests + settings.held_claims >= settings.threads:
            raise SettingsError(
                "PRIVATE_API_THREADS must exceed PRIVATE_API_HELD_REQUESTS and PRIVATE_API_HELD_CLAIMS "
                "together, or nobody would be left to end the waiting"
            )
        return settings


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str) -> str:
        return self._environment.get(name) or default

    def database_url(self, name: str, default: str) -> str:
        given = self.text(name, default)
        try:
            database_url(given)
        except DatabaseUrlError as error:
            raise SettingsError(f"{name} {error}") from error
        return given

    def secret(self, name: str) -> str:
        """The variable itself, or the contents of the file that ``NAME_FILE`` names."""
        file = self._environment.get(f"{name}_FILE")
        if not file:
            return self._environment.get(name) or ""
        if self._environment.get(name):
            raise SettingsError(f"{name} and {name}_FILE are both set; leave one out")
        try:
            return Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{name}_FILE cannot be read: {error}") from error

    def one_of(self, name: str, choices: tuple[str, ...], default: str) -> str:
        chosen = self.text(name, default)
        if chosen not in choices:
            raise SettingsError(f"{name} must be {' or '.join(choices)}, not {chosen!r}")
        return chosen

    def whole(self, name: str, default: int, *, least: int) -> int:
        given = self._environment.get(name)
        if not given:
            return default
        try:
            value = int(given)
        except ValueError as error:
            raise SettingsError(f"{name} must be a whole number, not {given!r}") from error
        if value < least:
            raise SettingsError(f"{name} must be at least {least}, not {value}")
        return value

    def seconds(self, name: str, default: float) -> float:
        given = self._environment.get(name)
        if not given:
            return default
        try:
            value = float(given)
        except ValueError as error:
            raise SettingsError(f"{name} must be a number of seconds, not {given!r}") from error
        if not 0 <= value <= _MOST_SECONDS:
            raise SettingsError(f"{name} must be 0 to {_MOST_SECONDS:.0f} seconds")
        return value

    def optional_seconds(self, name: str) -> float | None:
        return self.seconds(name, 0.0) if self._environment.get(name) else None

    def flag(self, name: str, default: bool) -> bool:  # noqa: FBT001 - The default is the second of two plain values.
        given = self._environment.get(name)
        if not given:
            return default
        if given not in {"0", "1"}:
            raise SettingsError(f"{name} must be 0 or 1, not {given!r}")
        return given == "1"
