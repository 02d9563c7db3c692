"""The container engine over Docker's API: the only module that imports ``docker``.

``bootstrap`` enters to build it. The exceptions of docker, requests and urllib3 stop here and leave as ours.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from threading import Event
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from consumer.outside.docker_streams import ExitAnswer, LogAnswer, is_silence, transport_errors
from consumer.outside.engine import ContainerFacts, EngineFacts, EngineHost, Labelled, LocalImage, Mount
from consumer.outside.errors import AbandonedError, EngineAwayError, EngineError, NotFoundError, RefusedError
from consumer.outside.kernel import memory_kills

# No answer should take long to begin, and no pull is silent for long; a stuck engine must not hold a slot for
# ever. Only the body of a wait or a log may take as long as a model does.
CALL_SECONDS = 60
# The largest file that `read_file` returns; it is meant for a probe of a few bytes.
READ_LIMIT_BYTES = 1024**2
_NEVER = "0001-01-01T00:00:00Z"

# What a registry wants to hear before it hands out an image of this reference; None: nothing.
Credentials = Callable[[str], dict[str, str] | None]


def no_credentials(_reference: str) -> None:
    """All registries are public."""


class DockerEngine:
    """The engine over the Docker SDK's low-level client; for calls from any thread."""

    def __init__(self, docker_host: str | None = None, credentials: Credentials = no_credentials) -> None:
        self._credentials = credentials
        with our_errors():
            self._api: Any = _BoundedClient(
                base_url=docker_host, version="auto", timeout=CALL_SECONDS, max_pool_size=16
            )
        self._root = f"{self._api.base_url}/v{self._api.api_version}"

    def facts(self) -> EngineFacts:
        """Which engine this is."""
        with our_errors():
            version = self._api.version()
        major, _, minor = str(version["ApiVersion"]).partition(".")
        return EngineFacts(
            version=str(version.get("Version", "")),
            api_version=(int(major), int(minor)),
            os=str(version.get("Os", "")),
            architecture=str(version.get("Arch", "")),
        )

    def host(self) -> EngineHost:
        """The machine that it runs on."""
        with our_errors():
            found = self._api.info()
        clock = found.get("SystemTime")
        return EngineHost(
            name=str(found.get("Name", "")),
            data_root=str(found.get("DockerRootDir", "")),
            cpus=int(found.get("NCPU") or 0),
            memory_bytes=int(found.get("MemTotal") or 0),
            architecture=str(found.get("Architecture", "")),
            engine_version=str(found.get("ServerVersion", "")),
            # With the machine's own distance from UTC.
            now=datetime.fromisoformat(clock).timestamp() if clock else None,
            labels=tuple(map(_pair, found.get("Labels") or [])),
        )

    def find_image(self, reference: str) -> LocalImage | None:
        """The local image with this tag, digest or id."""
        try:
            with our_errors():
                image = self._api.inspect_image(reference)
        except NotFoundError:
            return None
        configured = image.get("Config") or {}
        declared = configured.get("Volumes") or {}
        return LocalImage(
            image_id=image["Id"],
            digests=tuple(image.get("RepoDigests") or ()),
            volumes=tuple(declared),
            size_bytes=int(image.get("Size") or 0),
            variables=tuple(variable.partition("=")[0] for variable in configured.get("Env") or ()),
        )

    def image_ids(self) -> set[str]:
        """The ids of all images, also of those without a name."""
        with our_errors():
            return set(self._api.images(quiet=True, all=True))

    def image_names(self) -> set[str]:
        """The tags of all images."""
        with our_errors():
            found = self._api.images()
        return {str(tag) for image in found for tag in image.get("RepoTags") or ()}

    def remove_image(self, reference: str) -> None:
        """Take this name from its image, and remove the image with its last name."""
        try:
            with our_errors():
                self._api.remove_image(reference)
        except NotFoundError:
            return

    def import_image(self, archive: bytes, repository: str, tag: str, changes: list[str]) -> None:
        """Make an image of a tar archive of its root file system."""
        with our_errors():
            self._api.import_image_from_data(archive, repository=repository, tag=tag, changes=changes)

    def pull_image(self, reference: str, abandoned: Event) -> None:
        """Fetch an image, looking at ``abandoned`` with every line of progress and after every silence.

        After a silence the engine is asked again, and goes on with what it has fetched.
        """
        while not abandoned.is_set():
            try:
                with our_errors():
                    # Without any, the SDK takes those that this process's user has given to docker login.
                    known = self._credentials(reference)
                    for line in self._api.pull(reference, stream=True, decode=True, auth_config=known):
                        if abandoned.is_set():
                            break
                        if "error" in line:
                            raise RefusedError(500, str(line["error"]))
                    else:
                        return
            except EngineAwayError as error:
                if not is_silence(error.__cause__):
                    raise
        raise AbandonedError("the pull is no longer wanted")

    def create_container(self, body: Mapping[str, Any], name: str | None = None) -> str:
        """Create it and return its id."""
        with our_errors():
            return str(self._api.create_container_from_config(dict(body), name=name)["Id"])

    def start_container(self, container_id: str) -> None:
        """Start it."""
        with our_errors():
            self._api.start(container_id)

    def watch_exit(self, container_id: str, *, before_start: bool = False) -> ExitAnswer:
        """Register for its exit.

        The engine sends the head of its answer when it has registered us and the body at the exit. The
        SDK's own ``wait`` returns at the exit only, so nobody could know when it is safe to start the
        container.
        """
        condition = "next-exit" if before_start else "not-running"
        return ExitAnswer(self._stream("POST", f"/containers/{container_id}/wait", {"condition": condition}))

    def find_container(self, name_or_id: str) -> ContainerFacts | None:
        """How it stands."""
        try:
            with our_errors():
                found = self._api.inspect_container(name_or_id)
        except NotFoundError:
            return None
        state = found["State"]
        layer = (found.get("GraphDriver") or {}).get("Data") or {}
        return ContainerFacts(
            container_id=found["Id"],
            state=state["Status"],
            exit_code=state["ExitCode"],
            oom_killed=state["OOMKilled"],
            started_at=_unix_time(state["StartedAt"]),
            labels=found["Config"].get("Labels") or {},
            upper_directory=layer.get("UpperDir"),
            mounts=tuple(
                Mount(kind=item["Type"], source=item.get("Source") or "", destination=item["Destination"])
                for item in found.get("Mounts") or ()
            ),
            image_id=str(found.get("Image") or ""),
        )

    def layer_bytes(self, container_id: str) -> int:
        """How much it has written to its writable layer."""
        with our_errors():
            url = self._api._url("/containers/{0}/json", container_id)
            # The SDK's own inspection does not offer it.
            found = self._api._result(self._api._get(url, params={"size": 1}), json=True)
        return int(found.get("SizeRw") or 0)

    def signal_container(self, container_id: str, signal: str) -> None:
        """Send its first process a signal; 409 is the engine's word for one that does not run."""
        try:
            with our_errors():
                self._api.kill(container_id, signal)
        except NotFoundError:
            return
        except RefusedError as error:
            if error.status != 409:
                raise

    def was_signaled(self, container: ContainerFacts) -> bool:
        """As far back as it remembers, which is a few hundred events."""
        now = self.host().now
        if now is None or container.started_at is None:
            return False
        wanted = {"container": container.container_id, "event": "kill"}
        with our_errors():
            found = self._api.events(since=f"{container.started_at:.9f}", until=f"{now:.9f}", filters=wanted)
            return bool(list(found))

    def memory_kills(self) -> int:
        """As the kernel counts them."""
        return memory_kills()

    def remove_container(self, container_id: str) -> None:
        """Kill and remove it with its anonymous volumes; 409 means that somebody else is at it already."""
        try:
            with our_errors():
                self._api.remove_container(container_id, force=True, v=True)
        except NotFoundError:
            return
        except RefusedError as error:
            if error.status != 409:
                raise

    def list_containers(self, labels: Mapping[str, str]) -> list[Labelled]:
        """All containers, running or not, that carry these labels."""
        with our_errors():
            found = self._api.containers(all=True, filters={"label": _filters(labels)})
        return [
            Labelled(
                name=item["Id"],
                labels=item.get("Labels") or {},
                given_name=next(iter(item.get("Names") or ()), "").lstrip("/"),
            )
            for item in found
        ]

    def create_volume(self, name: str, device: str, labels: Mapping[str, str]) -> None:
        """Make a named volume of the local driver that shows the directory ``device``."""
        options = {"type": "none", "o": "bind", "device": device}
        with our_errors():
            self._api.create_volume(name, driver="local", driver_opts=options, labels=dict(labels))

    def remove_volume(self, name: str) -> None:
        """Remove it; one that has gone is fine."""
        try:
            with our_errors():
                self._api.remove_volume(name)
        except NotFoundError:
            return

    def list_volumes(self, labels: Mapping[str, str]) -> list[Labelled]:
        """All volumes that carry these labels."""
        with our_errors():
            found = self._api.volumes(filters={"label": _filters(labels)}).get("Volumes") or []
        return [
            Labelled(name=item["Name"], labels=item.get("Labels") or {}, given_name=item["Name"])
            for item in found
        ]

    def ensure_network(self, name: str, labels: Mapping[str, str], options: Mapping[str, str]) -> str:
        """The bridge network's id, which unlike its name is never ambiguous."""
        with our_errors():
            try:
                return str(self._api.inspect_network(name)["Id"])
            except NotFound:
                pass
            try:
                made = self._api.create_network(
                    name, "bridge", options=dict(options), labels=dict(labels), check_duplicate=True
                )
            except APIError:
                # Another slot may have been first.
                return str(self._api.inspect_network(name)["Id"])
        return str(made["Id"])

    def remove_network(self, name: str) -> None:
        """Remove it; 403 is the engine's word for one that is in use."""
        try:
            with our_errors():
                self._api.remove_network(name)
        except NotFoundError:
            return
        except RefusedError as error:
            if error.status != 403:
                raise

    def follow_logs(self, container_id: str) -> LogAnswer:
        """Its log from the very beginning, then as it grows."""
        return LogAnswer(
            self._stream("GET", f"/containers/{container_id}/logs", {"stdout": 1, "stderr": 1, "follow": 1})
        )

    def tail_logs(self, container_id: str, lines: int) -> bytes:
        """The last lines of its log."""
        with our_errors():
            return bytes(self._api.logs(container_id, tail=lines))

    def _stream(self, method: str, path: str, params: dict[str, str | int]) -> requests.Response:
        """An answer whose head has come and whose body comes as things happen, perhaps for hours."""
        with our_errors():
            answer: requests.Response = self._api.request(
                method, self._root + path, params=params, stream=True, timeout=(CALL_SECONDS, CALL_SECONDS)
            )
            if answer.status_code == 404:
                raise NotFoundError(answer.text.strip())
            answer.raise_for_status()
            # The head had a time limit; the body has none.
            connection: Any = answer.raw.connection
            connection.sock.settimeout(None)
        return answer

    def read_file(self, container_id: str, path: str) -> bytes:
        """One small file, through the engine's archive call, which must be read to its end."""
        with our_errors():
            pieces, _ = self._api.get_archive(container_id, path)
            archive = b"".join(pieces)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None:
                    return content.read(READ_LIMIT_BYTES)
        raise NotFoundError(f"{path} is not a file in container {container_id[:12]}")


class _BoundedClient(docker.APIClient):
    """The SDK's client, except that no call waits without a limit; the SDK's own pull would."""

    def _set_request_timeout(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        kwargs["timeout"] = kwargs.get("timeout") or self.timeout
        return kwargs


@contextmanager
def our_errors() -> Iterator[None]:
    """Let docker's exceptions, and those of what it is built on, leave as ours."""
    with transport_errors():
        try:
            yield
        except NotFound as error:
            raise NotFoundError(str(error.explanation or error)) from error
        except APIError as error:
            status = error.response.status_code if error.response is not None else 500
            raise RefusedError(status, str(error.explanation or error)) from error
        except DockerException as error:
            if isinstance(error.__cause__, OSError):
                # A client that asks for the engine's version before all else hides that nobody answered.
                raise EngineAwayError(f"the container engine does not answer: {error.__cause__}") from error
            raise EngineError(f"the container engine's answer makes no sense: {error}") from error


def _pair(label: str) -> tuple[str, str]:
    name, _, value = label.partition("=")
    return name, value


def _filters(labels: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in labels.items()]


def _unix_time(moment: str) -> float | None:
    """Docker's RFC 3339 time with nanoseconds; it writes the year 1 for never."""
    if moment == _NEVER:
        return None
    whole, _, fraction = moment.rstrip("Z").partition(".")
    seconds = datetime.fromisoformat(f"{whole}+00:00").timestamp()
    return seconds + float(f"0.{fraction or 0}")
