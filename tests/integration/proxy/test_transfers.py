"""The real public API behind the real Caddy: large bodies, bad bodies, and who the client is said to be."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.integration.proxy.running_proxy import Proxy, running_proxy
from tests.integration.proxy.stand_ins import serving
from tests.integration.public_api.public_api_processes import (
    Handler,
    PublicApi,
    Upstream,
    await_the_minutes_beginning,
    read_answer,
    running_public_api,
)
from tests.rig.containers import run_inside
from tests.rig.polling import eventually

MIB = 1024 * 1024
OUTPUT = "/v1/tasks/" + "a" * 32 + "/output"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Upstream, PublicApi, Proxy]]:
    """A stand-in for the private API, the public API, and Caddy before it."""
    settings = {
        "TRUSTED_PROXIES": "127.0.0.1/32", "PUBLIC_API_STALL_SECONDS": "2",
        "PUBLIC_API_FAILED_KEYS_PER_MINUTE": "3",
    }  # fmt: skip
    with (
        serving() as private,
        running_public_api(private.url, tmp_path_factory.mktemp("public"), **settings) as public,
        running_proxy(tmp_path_factory.mktemp("proxy"), f"127.0.0.1:{public.port}") as proxy,
    ):
        yield private, public, proxy


@pytest.fixture
def private(house: tuple[Upstream, PublicApi, Proxy]) -> Upstream:
    house[0].seen.clear()
    house[0].script.clear()
    return house[0]


@pytest.fixture
def proxy(house: tuple[Upstream, PublicApi, Proxy], private: Upstream) -> Proxy:
    return house[2]


class Sized:
    """A gigabyte, piece by piece."""

    def __len__(self) -> int:
        return 1024 * MIB

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(1024):
            yield b"x" * MIB


def test_a_gigabyte_passes_up_and_down_in_flat_memory_and_no_file(proxy: Proxy, private: Upstream) -> None:
    # given
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(1024 * MIB))
        handler.end_headers()
        for piece in Sized():
            handler.wfile.write(piece)

    private.on("GET", OUTPUT, answer)
    look = {"verify": str(proxy.root_certificate), "timeout": 60}

    # when
    up = requests.put(f"{proxy.url}/v1/tasks?model_human_readable_id=m", data=Sized(), **look)
    with requests.get(proxy.url + OUTPUT, stream=True, **look) as down:
        received = sum(len(piece) for piece in down.iter_content(MIB))

    # then
    assert (up.status_code, private.seen[0].body_bytes) == (200, 1024 * MIB)
    assert (down.status_code, received) == (200, 1024 * MIB)
    assert proxy.peak_bytes() < 200 * MIB
    # What it may write at all is a few megabytes of /tmp, its data and its configuration.
    written = run_inside(proxy.container, ["sh", "-c", "find /tmp /data /config -type f -size +1M"])
    assert written.checked() == b""


def test_wrong_keys_are_counted_by_the_client_and_not_by_the_proxy(proxy: Proxy, private: Upstream) -> None:
    # given
    private.on_json("GET", "/v1/models", 401, {"code": "unauthenticated"})

    def guess(source: str, **headers: str) -> int:
        return proxy.get("/v1/models", source=source, headers={"X-API-Key": "wrong", **headers}).status

    await_the_minutes_beginning()

    # when one client tries keys, and says each time to be another
    tries = [guess("127.0.0.2", **{"X-Forwarded-For": f"10.0.0.{number}"}) for number in range(5)]

    # then it has to pause, and its neighbour has not
    assert tries == [401, 401, 401, 429, 429]
    assert guess("127.0.0.3") == 401


def test_a_refusal_comes_before_the_body_is_sent(proxy: Proxy, private: Upstream) -> None:
    # given
    private.on("PUT", "/v1/tasks", lambda handler: handler.answer_json(401, {"code": "unauthenticated"}))

    # when a client waits to be asked for its gigabyte
    with proxy.connect() as sock:
        sock.sendall(
            b"PUT /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        status, _, body = read_answer(sock)

    # then
    assert status == 401
    assert json.loads(body)["code"] == "unauthenticated"


def test_what_is_too_large_is_refused_in_the_application_s_words(proxy: Proxy) -> None:
    # when
    answer = proxy.ask("POST", "/v1/keys", body=b"x" * (2 * MIB))

    # then
    assert (answer.status, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_body_that_ends_early_is_never_taken_for_whole(
    proxy: Proxy, private: Upstream, framing: str
) -> None:
    # given an upload of which a tenth is sent
    start = b"186a0\r\n" if "chunked" in framing else b""
    with proxy.connect() as sock:
        sock.sendall(f"PUT /v1/tasks HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode() + start)
        sock.sendall(b"x" * 100_000)
        eventually(lambda: private.seen and private.last.body_bytes, 10, "it is under way")

        # when its sender says no more, but would still listen
        socket.socket.shutdown(sock, socket.SHUT_WR)
        said = b""
        try:
            while piece := sock.recv(65536):
                said += piece
        except OSError:
            pass

    # then it breaks off for the private API too; Caddy tells the sender nothing, or an empty 200, which is
    # why clients take nothing but the JSON of a task for an acceptance
    assert private.last.gone.wait(5)
    assert (private.last.broken, private.last.complete) == (True, False)
    head, _, body = said.partition(b"\r\n\r\n")
    assert body == b"" or json.loads(body)["code"] in {"incomplete_body", "unavailable"}
    assert b"json" not in head or not head.startswith(b"HTTP/1.1 2")


def test_stalled_uploads_hold_nothing_behind_the_proxy(proxy: Proxy, private: Upstream) -> None:
    # given as many as there are places for uploads, each stopped in the middle
    stalled = [proxy.connect() for _ in range(96)]
    try:
        for sock in stalled:
            sock.sendall(b"PUT /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
            sock.sendall(b"x" * 100_000)

        # when / then others are served at once, and their places are free again after the stall time
        assert proxy.get("/v1/models").status == 200
        body = b"x" * 100_000
        eventually(lambda: proxy.ask("PUT", "/v1/tasks", body=body).status == 200, 20, "there is a place")
    finally:
        for sock in stalled:
            sock.close()


def test_a_page_of_another_site_cannot_use_a_browser_s_key(proxy: Proxy) -> None:
    # given what a browser sends once its user has logged in
    basic = {"Authorization": "Basic dTpr"}
    own = f"https://localhost:{proxy.https_port}"

    for origin, status in ((own, 200), ("https://evil.example", 403), (own.replace("https", "http"), 403)):
        # when
        answer = proxy.ask("POST", "/api/tasks/", body=b"x", headers={**basic, "Origin": origin})

        # then
        assert answer.status != 403 if status == 200 else answer.json()["code"] == "cross_site_refused"


def test_the_same_id_names_a_request_in_all_logs(
    house: tuple[Upstream, PublicApi, Proxy], proxy: Proxy, private: Upstream
) -> None:
    # given
    private.on("GET", "/v1/models", lambda handler: handler.cut())

    # when
    request_id = proxy.get("/v1/models").headers["x-request-id"]

    # then
    assert private.last.headers["x-request-id"] == request_id
    eventually(lambda: request_id in Path(house[1].log).read_text(), 5, "the public API logs it")
    eventually(lambda: request_id in str(proxy.access_log()), 5, "the proxy logs it")


def test_curl_and_http_2_bring_a_zip_through(proxy: Proxy, private: Upstream, tmp_path: Path) -> None:
    # given
    (tmp_path / "task.zip").write_bytes(b"x" * 20 * MIB)

    # when
    done = subprocess.run(
        ["curl", "-sS", "--http2", "--cacert", str(proxy.root_certificate), "-T", str(tmp_path / "task.zip"),
         "-w", "\n%{http_version} %{http_code}", f"{proxy.url}/v1/tasks?model_human_readable_id=m"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip

    # then
    assert done.stdout.splitlines()[-1] == "2 200"
    assert private.last.body_bytes == 20 * MIB
