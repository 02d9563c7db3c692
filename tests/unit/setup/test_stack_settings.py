"""What the full stack's settings become, and which are refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from setup.console import SetupError
from setup.stack import stack_settings
from setup.stack.stack_settings import Chosen, Source


def choose(
    environment: Mapping[str, str], remembered: Mapping[str, str] | None = None, source: Source = Source.LOCAL
) -> Chosen:
    return stack_settings.choose(
        environment,
        remembered or {},
        installation="abc123",
        state="/somewhere/.state",
        docker_socket="/var/run/docker.sock",
        source=source,
        version="2.0.0",
    )


def test_without_any_word_the_stack_listens_on_this_machine_only() -> None:
    chosen = choose({})
    assert chosen.values["PUBLISH_ADDRESS"] == "127.0.0.1"
    assert chosen.address == "https://localhost:8443"
    assert chosen.project == "inferenceserver-abc123"


def test_the_consumer_of_the_stack_is_told_from_the_embedded_one() -> None:
    # The embedded server labels with the installation's own id, and sweeps whatever carries it.
    assert choose({}).installation != "abc123"


def test_the_environment_counts_before_what_is_remembered_and_that_before_the_default() -> None:
    remembered = dict(choose({"HTTPS_PORT": "9443", "CPU_SLOTS": "3"}).values)
    again = choose({}, remembered)
    assert (again.https_port, again.values["CPU_SLOTS"]) == (9443, "3")
    assert choose({"HTTPS_PORT": "10443"}, remembered).https_port == 10443


def test_the_settings_survive_their_file() -> None:
    chosen = choose({"GPUS": "GPU-1,GPU-2", "BLOB_PUBLIC_URL": "https://store.example:9000/?a=b"})
    assert stack_settings.parse(stack_settings.render(chosen)) == chosen.values


def test_an_image_named_by_hand_stays_and_our_own_choice_moves_with_the_release() -> None:
    before = dict(choose({"POSTGRES_IMAGE": "mirror.example/postgres:17.9"}, source=Source.UPSTREAM).values)
    before["RABBITMQ_IMAGE"] = "rabbitmq:3.9"  # What an older release of ours pinned.
    after = choose({}, before, Source.UPSTREAM)
    assert after.values["POSTGRES_IMAGE"] == "mirror.example/postgres:17.9"
    assert after.values["RABBITMQ_IMAGE"] == stack_settings.UPSTREAM["RABBITMQ_IMAGE"]


def test_the_store_runs_as_the_user_of_its_image() -> None:
    assert choose({}, source=Source.LOCAL).store_user == (10001, 10001)
    assert choose({}, source=Source.UPSTREAM).store_user == (1000, 1000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PORT", "0"),
        ("HTTPS_PORT", "eight"),
        ("HTTP_PORT", "65536"),
        ("HTTPS_PORT", "8079"),  # HTTP_PORT's.
        ("PUBLISH_ADDRESS", "localhost"),
        ("BROKER_NODES", "2"),
        ("BROKER_NODES", "three"),
        ("STORE_USER", "root"),
        ("CPU_SLOTS", "1\nIMAGES=x"),
        ("GPUS", "a'b"),
        ("MAX_INPUT_BYTES", "$HOME"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(SetupError, match=name):
        choose({name: value})


def test_images_come_from_one_of_two_places() -> None:
    assert stack_settings.read_source("") is None
    assert stack_settings.read_source("upstream") is Source.UPSTREAM
    with pytest.raises(SetupError, match="IMAGES"):
        stack_settings.read_source("somewhere")
