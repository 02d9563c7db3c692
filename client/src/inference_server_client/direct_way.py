"""The way around the server: a zip fetched from the store to which the server sent us.

The transport enters with an address that opens one file for some minutes. Whatever goes wrong on this way
is ``DirectWayError``, and the caller asks the server for the bytes themselves. The address is a secret: it
stands in no message, and no error with it inside is passed on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import requests
import urllib3

from inference_server_client.address import ServerAddress
from inference_server_client.errors import AnswerError, DirectWayError, IntegrityError

# Shorter than for the server: where nobody lets us through to the store, we are soon on the other way.
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
_TROUBLE = (
    requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError, AnswerError, IntegrityError,
)  # fmt: skip


@contextlib.contextmanager
def fetch_directly(
    session: requests.Session, url: str, headers: Mapping[str, str], address: ServerAddress
) -> Iterator[requests.Response]:
    """The store's answer to a GET of ``url``; of our ``headers`` it hears only which part we want."""
    try:
        parts = urlsplit(url)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and address.url.startswith("http:"))
    except ValueError:
        is_safe = False
    if not is_safe:
        raise DirectWayError("The server's store has no address that is as safe as the server's own.")
    # `If-Range` would name the server's tag of the file, which is not the store's; files never change.
    wanted = {name: value for name, value in headers.items() if name == "Range"}
    timeout = (_CONNECT_SECONDS, _READ_SECONDS)
    # Given with the request, because the environment's certificates would win over the session's.
    verify = session.verify if isinstance(session.verify, str) else None
    try:
        with (
            session,
            session.get(
                url, headers=wanted, timeout=timeout, verify=verify, stream=True, allow_redirects=False
            ) as response,
        ):
            if response.status_code not in {200, 206}:
                raise DirectWayError(f"The server's store answered with status {response.status_code}.")
            yield response
    except _TROUBLE as error:
        raise DirectWayError(f"The way to the server's store broke off ({type(error).__name__}).") from None
