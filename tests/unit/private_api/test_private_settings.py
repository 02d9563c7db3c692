import re

import pytest

from private_api.settings import Settings, SettingsError
from private_api.start import open_database


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
        ("OUTPUT_RETENTION_SECONDS", "-1"),
        ("RETENTION_SECONDS", "1e15"),
        ("LOG_RETENTION_SECONDS", "inf"),
        ("DATABASE_CONNECTIONS", "1"),
    ],
)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(SettingsError, match=re.escape(name)):
        Settings.from_environment({name: value})


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u@h/d",
        "postgresql+asyncpg://u@h/d",
        "postgresql+psycopg2://u:secret-1@h:port/d",
        "postgresql+psycopg2://u:secret-1@h/",
        "sqlite://",
        "secret-1",
    ],
)
def test_a_wrong_address_of_the_database_is_named_without_being_repeated(url):
    with pytest.raises(SettingsError, match="DATABASE_URL") as raised:
        Settings.from_environment({"DATABASE_URL": url})
    assert "secret-1" not in str(raised.value)


@pytest.mark.parametrize("scheme", ["postgresql+psycopg2", "postgresql", "postgres"])
def test_the_databases_password_takes_its_place_and_is_shown_nowhere(scheme, tmp_path):
    # Given a password with characters that mean something in addresses
    password = "p@ss/w:rd%41"
    (tmp_path / "password").write_text(f"{password}\n")
    settings = Settings.from_environment(
        {
            "DATABASE_URL": f"{scheme}://user:overruled@host:5433/db?sslmode=require",
            "DATABASE_PASSWORD_FILE": str(tmp_path / "password"),
        }
    )
    # When
    database = open_database(settings)
    # Then
    url = database.engine.url
    assert (url.drivername, url.username, url.password) == ("postgresql+psycopg2", "user", password)
    assert (url.host, url.port, url.database, dict(url.query)) == ("host", 5433, "db", {"sslmode": "require"})
    for shown in (repr(settings), repr(database.engine), str(url), database.name):
        assert password not in shown
        assert "overruled" not in shown


def test_each_kind_of_data_is_kept_as_long_as_all_unless_it_has_a_time_of_its_own():
    settings = Settings.from_environment(
        {"RETENTION_SECONDS": "60", "LOG_RETENTION_SECONDS": "0", "INPUT_RETENTION_SECONDS": "1.5"}
    )
    kept = settings.retention
    assert (kept.input_seconds, kept.output_seconds, kept.log_seconds) == (1.5, 60.0, 0.0)
