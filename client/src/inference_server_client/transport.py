"""One request to the server, made to last: authentication, time limits, retries, and the reading of refusals.

The groups of calls (tasks, models, keys) enter with a ``Call`` and a function that reads the answer.
Nothing here knows a route. The key goes only to the configured server: redirects are not followed.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import requests
import urllib3

from inference_server_client.address import ServerAddress
from inference_server_client.direct_way import fetch_directly
from inference_server_client.errors import (
    AnswerError,
    ConfigurationError,
    InferenceServerError,
    InputError,
    NotFoundError,
    UnreachableError,
)
from inference_server_client.problems import read_body, read_refusal
from inference_server_client.retries import PATIENT, RetryPolicy
from inference_server_client.upload_body import UploadBody

T = TypeVar("T")
OnRetry = Callable[[InferenceServerError, float], None]

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 60.0
# urllib3 applies the connection's limit to each write of a body: the server may pause to flush its disk.
_UPLOAD_WRITE_SECONDS = 120.0
# After the last byte the server still has to store what it took in.
_UPLOAD_READ_SECONDS = 300.0
_LARGEST_JSON_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request. ``wait_seconds``: how long the server may hold it; ``patient``: sit out long outages.

    ``redirectable``: the server may send us to its store, which ``DirectWayError`` says did not work.
    """

    method: str
    path: str
    query: Mapping[str, str | int | float] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: object | None = None
    body: UploadBody | None = None
    creates: bool = False
    idempotency_key: str | None = None
    wait_seconds: float = 0.0
    patient: bool = False
    # Whether the server may send us to its store for the answer.
    redirectable: bool = False


class Transport:
    """Performs calls. Threads may share it: each gets a connection pool of its own."""

    def __init__(
        self,
        address: ServerAddress,
        key: str | None,
        *,
        ca_cert: Path | None = None,
        retry: RetryPolicy | None = None,
        on_retry: OnRetry | None = None,
        user_agent: str = "inference-server-client",
    ) -> None:
        if ca_cert is not None and not ca_cert.is_file():
            raise ConfigurationError(f"The CA certificate file {ca_cert} does not exist.")
        self.address = address
        self._key = key
        self._ca_cert = ca_cert
        self._retry = retry or RetryPolicy()
        self._on_retry = on_retry or (lambda _error, _delay: None)
        self._user_agent = user_agent
        self._local = threading.local()
        # Weak, because a thread's session is closed with the thread and need not outlive it.
        self._sessions: weakref.WeakSet[requests.Session] = weakref.WeakSet()

    def perform(self, request: Call | Callable[[], Call], read: Callable[[requests.Response], T]) -> T:
        """Send a call, again where that helps, and give the answer to ``read``.

        A function in the place of the call is asked before every attempt (a download goes on where it
        broke off). ``read`` is called once per attempt; what it raises as retryable leads to the next.
        """
        new_key = uuid.uuid4().hex
        started, attempt = time.monotonic(), 1
        while True:
            call = request if isinstance(request, Call) else request()
            headers = dict(call.headers)
            if call.creates:
                headers["Idempotency-Key"] = call.idempotency_key or new_key
            policy = PATIENT if call.patient else self._retry
            try:
                with self._answer(call, headers) as response:
                    return read(response)
            except InferenceServerError as error:
                delay = policy.delay_after(
                    error,
                    attempt=attempt,
                    elapsed_seconds=time.monotonic() - started,
                    jitter=random.random(),  # noqa: S311  # Nothing secret hangs on when we come back.
                )
                if delay is None or not (call.body is None or call.body.repeatable):
                    raise
                self._on_retry(error, delay)
                time.sleep(delay)
                attempt += 1

    def json(self, call: Call) -> dict[str, Any]:
        """The JSON object that answers ``call``."""
        return self.perform(call, read_json_object)

    def remove(self, path: str) -> None:
        """DELETE, where an earlier attempt whose answer was lost may have removed the thing already."""
        attempts = 0

        def call() -> Call:
            nonlocal attempts
            attempts += 1
            return Call(method="DELETE", path=path)

        try:
            self.perform(call, _require_no_content)
        except NotFoundError:
            if attempts == 1:
                raise

    def close(self) -> None:
        """Close the connections of all threads; another call opens new ones."""
        for session in list(self._sessions):
            session.close()

    @contextlib.contextmanager
    def _answer(self, call: Call, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        elsewhere = None
        with _translated_errors(self.address), self._send(call, headers) as response:
            if call.redirectable and response.status_code == 307:
                elsewhere = response.headers.get("Location", "")
            elif response.status_code >= 300:
                raise read_refusal(response)
            else:
                yield response
        if elsewhere is not None:
            with fetch_directly(self._direct_session(), elsewhere, headers, self.address) as direct:
                yield direct

    def _send(self, call: Call, headers: Mapping[str, str]) -> requests.Response:
        sent = {"Accept": "application/json, application/problem+json", **headers}
        data: Any = None
        timeout = (_CONNECT_SECONDS, _READ_SECONDS + call.wait_seconds)
        if call.body is not None:
            sent["Content-Type"] = call.body.content_type
            timeout = (_UPLOAD_WRITE_SECONDS, _UPLOAD_READ_SECONDS)
            data = iter(call.body)
            if call.body.total_bytes is not None:
                data = _Sized(data, call.body.total_bytes)
        return self._session().request(
            call.method,
            self.address.url + call.path,
            params=dict(call.query),
            headers=sent,
            json=call.json,
            data=data,
            timeout=timeout,
            # Given with every request, because the environment's certificates would win over the session's.
            verify=str(self._ca_cert) if self._ca_cert else None,
            stream=True,
            allow_redirects=False,
        )

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            # A proxy for the outside world has no business between two processes of one machine.
            session.trust_env = not self.address.loopback
            # Compression would hide lengths and hashes. Some key is always "set", or .netrc would be read.
            session.headers.update({"User-Agent": self._user_agent, "Accept-Encoding": "identity"})
            session.auth = self._authenticate
            self._local.session = session
            self._sessions.add(session)
        return session

    def _direct_session(self) -> requests.Session:
        """A session without our key; the store's addresses carry their own right."""
        session = requests.Session()
        session.headers.update({"User-Agent": self._user_agent, "Accept-Encoding": "identity"})
        session.auth = lambda request: request
        session.verify = str(self._ca_cert) if self._ca_cert else True
        return session

    def _authenticate(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class _Sized:
    """An iterator with the length that it will have, so that it is sent with a Content-Length."""

    def __init__(self, chunks: Iterator[bytes], total_bytes: int) -> None:
        self._chunks, self._total_bytes = chunks, total_bytes

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def __len__(self) -> int:
        return self._total_bytes


def segment(identifier: str) -> str:
    """An id as one segment of a path, whatever people typed."""
    if identifier in {"", ".", ".."}:
        raise InputError(f"{identifier!r} is not an id.")
    return quote(identifier, safe="")


def read_json_object(response: requests.Response) -> dict[str, Any]:
    """The JSON object in an answer; a proxy's empty 200 or a web page raises ``AnswerError``."""
    content_type = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    body = read_body(response, _LARGEST_JSON_BYTES + 1)
    if content_type != "application/json" or not 0 < len(body) <= _LARGEST_JSON_BYTES:
        raise AnswerError(
            f"The answer ({response.status_code}) is not the server's JSON: the connection was cut short, "
            "or the address is not that of an inference server."
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AnswerError("The server's JSON ended early or is damaged.") from error
    if not isinstance(document, dict):
        raise AnswerError("The server's JSON is not an object; is this the right server?")
    return document


def _require_no_content(response: requests.Response) -> None:
    if response.status_code != 204:
        read_json_object(response)


@contextlib.contextmanager
def _translated_errors(address: ServerAddress) -> Iterator[None]:
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise UnreachableError(
            f"The certificate of {address.url} is not trusted; give its CA with --ca-cert or INFER_CA_CERT.",
            retryable=False,
        ) from error
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise UnreachableError(f"{address.url} did not answer in time.") from error
    except requests.exceptions.ProxyError as error:
        raise UnreachableError(f"The proxy on the way to {address.url} does not let us through.") from error
    except (
        requests.exceptions.ConnectionError,
        requests.exceptions.ChunkedEncodingError,
        urllib3.exceptions.HTTPError,
        ConnectionError,
    ) as error:
        raise UnreachableError(_connection_sentence(address, error)) from error
    except requests.exceptions.RequestException as error:
        raise ConfigurationError(
            f"The request to {address.url} cannot be made; check the address."
        ) from error


def _connection_sentence(address: ServerAddress, error: Exception) -> str:
    text = str(error)
    if "Connection refused" in text:
        return f"Nothing listens at {address.url}; is the server running?"
    if "NameResolution" in text or "getaddrinfo" in text:
        return f"The host name in {address.url} is not known."
    return f"The connection to {address.url} could not be made or broke."
