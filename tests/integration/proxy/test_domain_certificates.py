"""Certificates of domains: expired, soon to expire, lost, for an address; and what browsers are told."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.proxy.own_certificates import add_files, can_be_asked, make_pair, served
from tests.integration.proxy.running_proxy import Proxy
from tests.rig.polling import eventually


def test_hsts_is_told_only_where_it_goes_well(own: Proxy, tmp_path: Path) -> None:
    # given
    pair = make_pair(tmp_path, "DNS:files.example")
    add_files(own, "files.example", pair)
    own.command("domains", "add", "internal.example", "--tls", "internal")
    assert "strict-transport-security" not in own.get("/", name="files.example", verify=False).headers

    # when the port outside is the usual one
    own.command("apply", HTTPS_PORT="443")

    # then
    told = own.get("/", name="files.example", verify=False).headers["strict-transport-security"]
    assert told == "max-age=31536000"
    for name in ("internal.example", "localhost"):
        assert "strict-transport-security" not in own.get("/", name=name, verify=False).headers
    # And what runs now is not what these settings would make of it.
    assert own.command("status", ok=False).returncode == 1


def test_an_expired_certificate_is_refused_unless_it_is_wanted(own: Proxy, tmp_path: Path) -> None:
    # given
    pair = make_pair(tmp_path, "DNS:old.example", days=-1)

    # when
    refused = add_files(own, "old.example", pair, ok=False)
    forced = add_files(own, "old.example", pair, "--force")

    # then
    assert refused.returncode == 1
    assert "expired on" in refused.stderr
    assert "--force" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "expired on" in forced.stderr
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        own.connect("old.example", ssl.create_default_context(cafile=str(pair[0])))
    listed = own.command("domains", "list").stdout
    assert next(line for line in listed.splitlines() if "old.example" in line).count("EXPIRED") == 1


def test_a_certificate_that_expires_soon_is_told_of(own: Proxy, tmp_path: Path) -> None:
    # when
    pair = make_pair(tmp_path, "DNS:soon.example", days=9)
    added = add_files(own, "soon.example", pair)

    # then
    assert "soon.example" in added.stdout
    assert "expires in 8 days" in added.stderr
    assert "in 8 days: renew it" in own.command("domains", "list").stdout


def test_keys_are_kept_from_others_and_from_the_outside(own: Proxy, tmp_path: Path) -> None:
    # given a key that anybody on the operator's machine may read
    pair = make_pair(tmp_path, "DNS:files.example")
    pair[1].chmod(0o644)

    # when
    added = add_files(own, "files.example", pair)

    # then
    assert "can be read by other users" in added.stderr
    files = list((own.directory / "state/certificates").iterdir())
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    running = requests.get(
        f"http://127.0.0.1:{own.admin_port}/config/",
        headers={"Origin": f"http://127.0.0.1:{own.admin_port}"}, timeout=10,
    ).text  # fmt: skip
    assert "PRIVATE KEY" not in running


def test_a_certificate_and_its_key_may_come_from_standard_input(own: Proxy, tmp_path: Path) -> None:
    # given both in one text, in any order, with words around
    certificate, key = make_pair(tmp_path, "DNS:piped.example", stem="piped")
    bundle = f"some words\n{key.read_text()}more words\n{certificate.read_text()}"

    # when
    own.command("domains", "add", "piped.example", "--certificate", "-", said=bundle)
    without_key = own.command(
        "domains", "change", "piped.example", "--certificate", "-", said=certificate.read_text(), ok=False
    )

    # then
    assert served(own, "piped.example").issuer == "piped"
    assert "input.key holds no private key" in without_key.stderr
    kept = next((own.directory / "state/certificates").glob("*.crt")).read_text()
    assert kept == certificate.read_text()


def test_lost_certificate_files_cost_their_own_domain_only(own: Proxy, tmp_path: Path) -> None:
    # given
    add_files(own, "lost.example", make_pair(tmp_path, "DNS:lost.example"))
    own.command("domains", "add", "kept.example", "--tls", "internal")
    own.container.kill()
    shutil.rmtree(own.directory / "state/certificates")
    (own.directory / "state/domains/damaged.example.json").write_text("{")

    # when
    rendered = own.command("render")
    own.start()

    # then
    assert "lost.example is left out" in rendered.stderr
    assert "damaged.example.json is left out" in rendered.stderr
    assert eventually(lambda: can_be_asked(own, "kept.example"), 10, "it is served")


def test_an_address_is_served_to_clients_that_name_none(own: Proxy) -> None:
    # when
    own.command("domains", "add", "127.0.0.1", "--tls", "internal")
    second = own.command("domains", "add", "10.0.0.1", "--tls", "internal", ok=False)

    # then
    look = {"verify": str(own.root_certificate), "timeout": 10}
    url = f"https://127.0.0.1:{own.https_port}/v1/models"
    assert eventually(lambda: answers(url, **look), 10, "it is served")
    assert second.returncode == 1
    assert "there can be one" in second.stderr


def answers(url: str, **arguments: Any) -> bool:
    try:
        return requests.get(url, **arguments).status_code == 200
    except requests.exceptions.SSLError:
        return False


def test_a_name_of_its_own_is_not_served_the_certificate_of_a_wildcard(own: Proxy, tmp_path: Path) -> None:
    # given
    add_files(own, "*.w.example", make_pair(tmp_path, "DNS:*.w.example", stem="wildcard"))
    add_files(own, "files.w.example", make_pair(tmp_path, "DNS:files.w.example", stem="files"))
    own.command("domains", "add", "internal.w.example", "--tls", "internal")

    # when / then
    assert served(own, "other.w.example").names == ("*.w.example",)
    assert served(own, "files.w.example").names == ("files.w.example",)
    internal = "internal.w.example"
    assert eventually(lambda: served(own, internal).names == (internal,), 10, "it has its own")


def test_intermediates_that_were_forgotten_are_served_once_they_are_given(own: Proxy, tmp_path: Path) -> None:
    # given
    certificate, key = make_pair(tmp_path, "DNS:x.example")
    add_files(own, "x.example", (certificate, key))
    intermediate, _ = make_pair(tmp_path, "DNS:ca.example", stem="intermediate")

    # when
    certificate.write_text(certificate.read_text() + intermediate.read_text())
    own.command("domains", "change", "x.example", "--certificate", str(certificate), "--key", str(key))

    # then
    words = ["-connect", f"127.0.0.1:{own.https_port}", "-servername", "x.example", "-showcerts"]
    shown = subprocess.run(
        ["openssl", "s_client", *words], input="", capture_output=True, text=True, timeout=20, check=False
    ).stdout
    assert shown.count("-----BEGIN CERTIFICATE-----") == 2
