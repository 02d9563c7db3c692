"""Where the broker is, as the private API reads it."""

import pytest

from private_api.settings import Settings, SettingsError


def test_without_an_address_there_is_no_broker():
    assert Settings.from_environment({"BROKER_PASSWORD": "unused"}).broker is None


def test_the_brokers_password_comes_from_a_file_and_is_shown_nowhere(tmp_path):
    (tmp_path / "password").write_text("p@ss/word\n")
    settings = Settings.from_environment(
        {"BROKER_URL": "amqp://server:overruled@mq/%2F", "BROKER_PASSWORD_FILE": str(tmp_path / "password")}
    )
    assert settings.broker.password == "p@ss/word"
    for shown in (repr(settings), str(settings.broker), repr(settings.broker)):
        assert "p@ss" not in shown
        assert "overruled" not in shown


@pytest.mark.parametrize("url", ["mq:5672", "http://u@mq/", "amqp://mq/", "amqp://u:secret-1@mq:port/"])
def test_a_wrong_address_of_the_broker_is_named(url):
    with pytest.raises(SettingsError, match=r"^BROKER_URL must look like amqp://") as raised:
        Settings.from_environment({"BROKER_URL": url})
    assert "secret-1" not in str(raised.value)
