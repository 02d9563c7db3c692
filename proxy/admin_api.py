"""Caddy's admin API as this room uses it: the only file that knows ``caddy-api-client``.

Its ready-made calls for domains bring settings of their own (an ACME account, servers by name, no limits), so
only its way of making a request is used here, and each change is one whole configuration: Caddy checks it,
takes it over without dropping a request, or refuses it and goes on as before.
"""

from __future__ import annotations

from typing import Any

import requests
from caddy_api_client import CaddyAPIClient


class AdminApiError(Exception):
    """Caddy does not answer, or not as expected; the sentence says what happened."""


class ConfigurationRefusedError(AdminApiError):
    """Caddy looked at the configuration and keeps its old one; the sentence holds its own words."""


class AdminApi(CaddyAPIClient):  # type: ignore[misc]  # The package publishes no types.
    """The admin API at ``address`` (HOST:PORT)."""

    def __init__(self, address: str) -> None:
        super().__init__(f"http://{address}")
        self._address = address

    def load(self, config: dict[str, Any]) -> None:
        """Run ``config`` from now on; raises ``ConfigurationRefusedError`` and ``AdminApiError``."""
        self._ask("POST", "/load", config)

    def running(self) -> dict[str, Any]:
        """The configuration that Caddy runs."""
        config: dict[str, Any] = self._ask("GET", "/config/").json() or {}
        return config

    def upstreams(self) -> list[dict[str, Any]]:
        """Each upstream with its ``address`` and ``num_requests`` under way."""
        upstreams: list[dict[str, Any]] = self._ask("GET", "/reverse_proxy/upstreams").json()
        return upstreams

    def root_certificate(self) -> str:
        """The root certificate of Caddy's own authority, in PEM form."""
        return str(self._ask("GET", "/pki/ca/local").json()["root_certificate"])

    def _ask(self, method: str, path: str, data: dict[str, Any] | None = None) -> requests.Response:
        try:
            # Caddy wants to be told that no web page asks.
            answer: requests.Response = self._make_request(method, path, data, {"Origin": self.base_url})
        except Exception as error:
            # The package raises bare exceptions; what it caught is beneath, with Caddy's words in it.
            raise self._translated(error.__context__ or error) from error
        return answer

    def _translated(self, cause: BaseException) -> AdminApiError:
        answer = getattr(cause, "response", None)
        if answer is None:
            return AdminApiError(f"Caddy's admin API at {self._address} does not answer: {cause}")
        words = _words(answer)
        if answer.request.method == "POST" and answer.status_code == 400:
            return ConfigurationRefusedError(f"Caddy refuses this, and goes on as before: {words}")
        return AdminApiError(f"Caddy's admin API at {self._address} answers {answer.status_code}: {words}")


def _words(answer: requests.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text.strip()[:500] or "nothing"
