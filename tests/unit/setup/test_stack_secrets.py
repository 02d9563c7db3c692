"""The secrets' files and what is derived from them; that containers can read them is seen in tests/stack."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import stat
from pathlib import Path

from setup.stack import stack_secrets


def test_a_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    stack_secrets.write_once(file, "first")
    stack_secrets.write_once(file, "second")
    assert file.read_text() == "first"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_the_broker_is_told_hashes_that_it_can_check_and_no_password() -> None:
    text = stack_secrets.broker_definitions({"server": "s3cret", "worker": "other"})
    assert "s3cret" not in text
    hashes = {user["name"]: base64.b64decode(user["password_hash"]) for user in json.loads(text)["users"]}
    # RabbitMQ's documentation: four bytes of salt, then the SHA-256 of salt and password.
    assert hashes["server"][4:] == hashlib.sha256(hashes["server"][:4] + b"s3cret").digest()


def test_the_same_passwords_make_the_same_definitions() -> None:
    # A file that changed at every start would look like a change of users.
    passwords = {"server": "a", "worker": "b"}
    assert stack_secrets.broker_definitions(passwords) == stack_secrets.broker_definitions(passwords)


def test_workers_may_read_the_two_queues_of_work_and_do_nothing_else() -> None:
    document = json.loads(stack_secrets.broker_definitions({"server": "a", "worker": "b"}))
    rights = next(entry for entry in document["permissions"] if entry["user"] == "worker")
    for queue, may in [
        ("tasks.cpu", True),
        ("tasks.gpu", True),
        ("tasks.dead", False),
        ("xtasks.cpu", False),
    ]:
        assert bool(re.search(rights["read"], queue)) is may
    for verb in ("configure", "write"):
        assert not re.search(rights[verb], "tasks.cpu")


def test_the_stores_keys_are_in_the_form_that_both_stores_read() -> None:
    (identity,) = json.loads(stack_secrets.store_keys("abc"))["identities"]
    (pair,) = identity["credentials"]
    assert pair == {"accessKey": stack_secrets.STORE_ACCESS_KEY, "secretKey": "abc"}
    # Our own store takes an account and a user from it.
    assert pair["accessKey"].count(":") == 1
    assert "_" not in pair["accessKey"]
