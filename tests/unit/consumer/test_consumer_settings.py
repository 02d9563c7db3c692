"""Settings from the environment, and the line that stops a wrong one."""

from __future__ import annotations

import pytest

from consumer.node.settings import Settings
from consumer.outside.errors import SettingsError


def test_an_empty_environment_suits_one_machine() -> None:
    settings = Settings.from_environment({})
    assert settings.private_api_url == "http://127.0.0.1:8081"
    assert settings.gpus is None
    assert settings.cpu_slots is None


def test_installations_in_different_directories_differ() -> None:
    one, other = (Settings.from_environment({"CONSUMER_DIRECTORY": path}) for path in ("/a", "/b"))
    assert one.installation != other.installation


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PRIVATE_API_URL", "ftp://x"),
        ("PRIVATE_API_URL", "127.0.0.1:8081"),
        ("CPU_SLOTS", "many"),
        ("CPU_SLOTS", "-1"),
        ("GPUS", "0,1"),
        ("GPUS", "GPU-12345678,GPU-12345678"),
        ("NODE_NAME", "a b"),
        ("INSTALLATION", "../x"),
        ("DRAIN_SECONDS", "nan"),
        ("CLAIM_WAIT_SECONDS", "61"),
        ("CONSUMER_HOST_DIRECTORY", "relative/path"),
        ("CONSUMER_HOST_DIRECTORY", "/a/../b"),
        ("DISK_HIGH_PERCENT", "101"),
        ("DISK_LOW_PERCENT", "86"),
        ("CONTENT_UNUSED_SECONDS", "-1"),
        ("START_PATIENCE_SECONDS", "for ever"),
        ("NODE_LABELS", "site"),
        ("NODE_LABELS", "site=north,=x"),
        ("NODE_LABELS", "site=the north"),
        ("NODE_LABELS", "site=north,site=south"),
        ("NODE_LABELS", f"site={'n' * 64}"),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        Settings.from_environment({variable: value})


def test_gpus_are_none_or_listed() -> None:
    assert Settings.from_environment({"GPUS": "none"}).gpus == ()
    assert Settings.from_environment({"GPUS": "GPU-1234, MIG-5678"}).gpus == ("GPU-1234", "MIG-5678")


def test_labels_are_names_and_values() -> None:
    labels = Settings.from_environment({"NODE_LABELS": " site=north, disk = ssd,empty=,"}).node_labels
    assert labels == (("site", "north"), ("disk", "ssd"), ("empty", ""))


def test_the_low_watermark_follows_the_high_one() -> None:
    assert Settings.from_environment({}).disk_low_percent == 75
    assert Settings.from_environment({"DISK_HIGH_PERCENT": "50"}).disk_low_percent == 40
    assert Settings.from_environment({"DISK_HIGH_PERCENT": "5"}).disk_low_percent == 0


def test_installations_in_one_path_of_different_containers_differ() -> None:
    one, other = (
        Settings.from_environment({"CONSUMER_DIRECTORY": "/data", "CONSUMER_HOST_DIRECTORY": place})
        for place in ("/volumes/one", "/volumes/other")
    )
    assert one.installation != other.installation


@pytest.mark.parametrize(("drain", "claim_wait", "leave"), [("20", "4", 20), ("1", "60", 60)])
def test_a_slot_that_waits_at_a_claim_has_the_time_to_let_it_run_out(
    drain: str, claim_wait: str, leave: float
) -> None:
    # Killed before, it would take the task along that the server hands it in that moment
    settings = Settings.from_environment({"DRAIN_SECONDS": drain, "CLAIM_WAIT_SECONDS": claim_wait})
    assert settings.leave_seconds == leave
