"""Domains added, changed and removed while Caddy serves; what they survive, and what they never disturb."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.proxy.own_certificates import add_files, can_be_asked, make_pair, served
from tests.integration.proxy.running_proxy import Proxy, running_proxy
from tests.integration.public_api.public_api_processes import Handler, Upstream
from tests.rig.polling import eventually

MIB = 1024 * 1024


def test_a_domain_comes_changes_and_goes_while_it_serves(own: Proxy, tmp_path: Path) -> None:
    # when it comes
    own.command("domains", "add", "Bücher.Example", "--tls", "internal")

    # then
    name = "xn--bcher-kva.example"
    assert eventually(lambda: can_be_asked(own, name), 10, "it is served")
    assert served(own, name).names == (name,)
    assert name in own.command("domains", "list").stdout

    # and when it changes to files, and to other files
    for stem in ("first", "second"):
        certificate, key = make_pair(tmp_path, f"DNS:{name}", stem=stem)
        own.command("domains", "change", name, "--certificate", str(certificate), "--key", str(key))

        # then exactly that certificate is served
        assert served(own, name).issuer == stem
    assert len(list((own.directory / "state/certificates").iterdir())) == 2

    # and when it goes
    own.command("domains", "remove", name)

    # then
    with pytest.raises(ssl.SSLError):
        own.connect(name, ssl.create_default_context())
    assert own.get("/v1/models").status == 200
    assert list((own.directory / "state/certificates").iterdir()) == []
    assert own.command("status").returncode == 0


def test_a_change_breaks_nothing_in_flight(own: Any) -> None:  # noqa: C901  # Three stories at once.
    # given a waiting client, a download and an upload of 200 MB, all half way
    upstream: Upstream = own.upstream
    go_on = threading.Event()

    def hold(handler: Handler) -> None:
        go_on.wait(30)
        handler.answer_json(200, {"state": "succeeded"})

    def download(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(200 * MIB))
        handler.end_headers()
        for number in range(200):
            if number == 100:
                go_on.wait(30)
            handler.wfile.write(b"x" * MIB)

    upstream.on("GET", "/v1/wait", hold)
    upstream.on("GET", "/v1/output", download)
    results: dict[str, Any] = {}

    def body() -> Any:
        for number in range(200):
            if number == 100:
                go_on.wait(30)
            yield b"x" * MIB

    def ask(what: str, method: str, **arguments: Any) -> None:
        answer = requests.request(
            method, own.url + what, verify=str(own.root_certificate), timeout=60, stream=True, **arguments
        )
        results[what] = (answer.status_code, sum(len(piece) for piece in answer.iter_content(MIB)))

    threads = [
        threading.Thread(target=ask, args=("/v1/wait", "GET")),
        threading.Thread(target=ask, args=("/v1/output", "GET")),
        threading.Thread(target=ask, args=("/v1/tasks", "PUT"), kwargs={"data": body()}),
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: len(upstream.seen) == 3, 10, "all three are under way")
    eventually(lambda: any(s.body_bytes > 50 * MIB for s in upstream.seen), 20, "the upload is under way")

    # when
    for number in range(3):
        own.command("domains", "add", f"d{number}.example", "--tls", "internal")
    assert own.get("/v1/models").status == 200
    go_on.set()
    for thread in threads:
        thread.join(60)

    # then
    assert results["/v1/wait"][0] == 200
    assert results["/v1/output"] == (200, 200 * MIB)
    assert results["/v1/tasks"][0] == 200
    assert next(seen for seen in upstream.seen if seen.method == "PUT").body_bytes == 200 * MIB


def test_domains_outlive_a_restart_and_an_upgrade(own: Proxy, tmp_path: Path) -> None:
    # given
    pair = make_pair(tmp_path, "DNS:files.example")
    add_files(own, "files.example", pair)
    own.command("domains", "add", "internal.example", "--tls", "internal")
    root = own.root_certificate.read_text()

    # when Caddy is killed and started
    own.container.kill()
    own.start()

    # then
    assert served(own, "files.example").issuer == "own"
    assert eventually(lambda: can_be_asked(own, "internal.example"), 10, "it is served")
    assert own.root_certificate.read_text() == root

    # and when it starts with what a newer version, with other settings, made of the base
    own.container.stop(timeout=10)
    own.command("render", HTTPS_PORT="443")
    own.start()

    # then
    assert served(own, "files.example").issuer == "own"
    location = requests.get(f"http://127.0.0.1:{own.http_port}/", allow_redirects=False, timeout=10).headers[
        "Location"
    ]
    assert location == "https://127.0.0.1/"


def test_what_caddy_refuses_changes_nothing(own: Proxy, tmp_path: Path) -> None:
    # given an authority whose root certificate is no certificate
    (tmp_path / "root.pem").write_text("nonsense")
    before = (own.directory / "state/caddy.json").read_text()
    settings = {
        "PROXY_ACME_CA": "https://127.0.0.1:1/directory",
        "PROXY_ACME_CA_ROOT": str(tmp_path / "root.pem"),
    }

    # when
    refused = own.command("domains", "add", "refused.example", ok=False, **settings)

    # then
    assert refused.returncode == 1
    assert refused.stderr.startswith("proxy: Caddy refuses this, and goes on as before: ")
    assert refused.stderr.count("\n") == 1
    assert (own.directory / "state/caddy.json").read_text() == before
    assert list((own.directory / "state/domains").iterdir()) == []
    assert own.command("status").returncode == 0
    assert own.get("/v1/models").status == 200


def test_what_cannot_be_recorded_is_taken_back(own: Proxy) -> None:
    # given a volume in which the record has no place
    (own.directory / "state/domains/x.example.json").mkdir()
    (own.directory / "state/domains/x.example.json/in-the-way").touch()

    # when
    failed = own.command("domains", "add", "x.example", "--tls", "internal", ok=False)

    # then
    assert failed.returncode == 1
    assert "x.example.json cannot be written" in failed.stderr
    running = requests.get(
        f"http://127.0.0.1:{own.admin_port}/config/apps/tls",
        headers={"Origin": f"http://127.0.0.1:{own.admin_port}"}, timeout=10,
    ).json()  # fmt: skip
    assert "x.example" not in json.dumps(running)


def test_the_admin_api_answers_no_web_page(own: Proxy) -> None:
    # given what a browser would send for a page that guessed the address
    attempts = [
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {},
    ]

    for headers in attempts:
        # when
        connection = http.client.HTTPConnection("127.0.0.1", own.admin_port, timeout=10)
        connection.request("GET", "/config/", headers=headers)

        # then
        assert connection.getresponse().status == 403
        connection.close()


def test_a_caddy_that_is_away_is_named(tmp_path: Path) -> None:
    # given
    with running_proxy(tmp_path, "127.0.0.1:1", start=False) as proxy:
        for words in (["status"], ["ca"], ["domains", "add", "x.example"]):
            # when
            failed = proxy.command(*words, ok=False)

            # then
            assert failed.returncode == 1
            assert f"Caddy's admin API at 127.0.0.1:{proxy.admin_port} does not answer" in failed.stderr
            assert failed.stderr.count("\n") == 1
        assert not list((proxy.directory / "state/domains").iterdir())
