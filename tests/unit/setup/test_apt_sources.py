"""Which of apt's sources a new system is bootstrapped from."""

from __future__ import annotations

from setup.host.apt_sources import Source, choose

DEB822 = """\
Types: deb deb-src
# a comment between fields
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components:
 main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main
Enabled: no
"""


def test_deb822_sources_of_the_suite_and_its_updates_are_taken() -> None:
    found = choose({"debian.sources": DEB822}, "bookworm")
    assert found == [
        Source("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        Source("http://mirror.example/debian", "bookworm-updates", ("main", "contrib")),
        Source("http://security.example/debian-security", "bookworm-security", ("main",)),
    ]


def test_one_line_sources_lose_their_options() -> None:
    text = (
        "# deb http://old.example/debian bookworm main\n"
        "deb [ arch=amd64 signed-by=/usr/share/keyrings/ubuntu-archive-keyring.gpg ] "
        "http://mirror.example/ubuntu noble main universe # ours\n"
        "deb-src http://mirror.example/ubuntu noble main\n"
    )
    found = choose({"sources.list": text}, "noble")
    assert [source.line() for source in found] == ["deb http://mirror.example/ubuntu noble main universe"]


def test_third_parties_are_left_out() -> None:
    files = {
        "vendor.list": "deb [signed-by=/etc/apt/keyrings/vendor.gpg] http://vendor.example bookworm main\n",
        "node.sources": "Types: deb\nURIs: http://node.example\nSuites: nodistro\nComponents: main\n",
        "old.list.disabled": "deb http://mirror.example/debian bookworm main\n",
    }
    assert choose(files, "bookworm") == []


def test_the_same_source_counts_once() -> None:
    line = "deb http://mirror.example/debian bookworm main\n"
    assert len(choose({"a.list": line, "b.list": line}, "bookworm")) == 1
