import re

import pytest

from private_api.settings import Settings, SettingsError


def test_nothing_needs_to_be_set():
    assert Settings.from_environment({}) == Settings()


def test_an_empty_variable_is_as_good_as_none():
    assert Settings.from_environment({"DATABASE_URL": "", "MAX_INPUT_BYTES": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PRIVATE_API_THREADS", "many"),
        ("PRIVATE_API_THREADS", "1"),
        ("MAX_INPUT_BYTES", "-1"),
        ("MAX_INPUT_BYTES", "1e9"),
        ("RETENTION_SECONDS", "nan"),
        ("RETENTION_SECONDS", "-1"),
        ("USERS_REGISTER_MODELS", "yes"),
    ],
)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(SettingsError, match=re.escape(name)):
        Settings.from_environment({name: value})
