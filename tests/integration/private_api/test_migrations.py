"""Every released schema, filled with rows, becomes the present one; a newer one is left alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from private_api.bootstrap import bootstrap
from private_api.settings import Settings
from private_api.store.database import Database
from private_api.store.schema import NewerSchemaError, migrate
from private_api.store.tables import metadata
from tests.integration.private_api.callers import Api, problem, zip_of
from tests.rig.databases import create_database
from tests.rig.processes import Service

MODEL = """
    INSERT INTO models (uid, human_readable_id, description, enabled, use_gpu, pull_policy, profile, network,
        tmp_exec, allow_empty_output, input_mountpoint, output_mountpoint, model_mountpoint, limits, version,
        created_at, updated_at)
    VALUES ('u7', 'echo', '', true, false, 'if_missing', 'strict', false,
        false, false, '/input', '/output', '/model', :limits, 1,
        1000, 1000)"""
VERSION = """
    INSERT INTO model_versions (model_id, number, container_tag, created_at)
    SELECT id, 1, 'echo:1', 1000 FROM models"""
TASK = """
    INSERT INTO tasks (id, owner_id, model_id, version_id, kind, priority, state, attempt, spoiled,
        cancel_requested, queued_at, not_before, token, input_key, input_size, input_sha256, output_key,
        output_size, output_sha256, log_size, log_base, durations, created_at, started_at, finished_at,
        expires_at, purged_at)
    SELECT :id, 'o', model_id, id, 'cpu', 0, :state, 1, 0,
        false, 1000, 0, 1, :input_key, 3, :sha, :output_key,
        4, :sha, 6, 0, '{}', 1000, 1000, :finished_at,
        :expires_at, :purged_at
    FROM model_versions"""
LIMITS = (
    '{"time_seconds": 60.0, "memory_bytes": 1, "cpus": 1.0, "pids": 1, "output_bytes": 1, "output_files": 1,'
    ' "log_bytes": 1024, "shm_bytes": 1, "tmp_bytes": 1}'
)
FAR = 4_000_000_000_000


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request, tmp_path):
    """The address of a database without a schema."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/old.sqlite"
    return create_database(request.getfixturevalue("postgres"))


@pytest.fixture
def database(empty_url):
    database = Database(empty_url)
    yield database
    database.engine.dispose()


@pytest.fixture
def first_schema(database):
    """Schema 0001 with a model and a task of each sort; returns the tasks' ids by what they are."""
    migrate(database.engine, "0001")
    rows = {
        "kept": {"state": "succeeded", "finished_at": 2000, "expires_at": FAR, "purged_at": None},
        "for ever": {"state": "succeeded", "finished_at": 2000, "expires_at": None, "purged_at": None},
        "due": {"state": "succeeded", "finished_at": 2000, "expires_at": 3000, "purged_at": None},
        "gone": {"state": "succeeded", "finished_at": 2000, "expires_at": 3000, "purged_at": 4000},
        "queued": {"state": "queued", "finished_at": None, "expires_at": None, "purged_at": None},
    }
    with database.write() as connection:
        connection.execute(text(MODEL), {"limits": LIMITS})
        connection.execute(text(VERSION))
        for seq, (name, row) in enumerate(rows.items(), start=1):
            ended = row["state"] == "succeeded"
            facts = {"id": f"{seq:032x}", "sha": "ab" * 32, "input_key": f"inputs/{name}"}
            output_key = f"outputs/{name}" if ended else None
            connection.execute(text(TASK), {**facts, **row, "output_key": output_key})
    return {name: f"{seq:032x}" for seq, name in enumerate(rows, start=1)}


def test_the_first_schema_with_rows_becomes_the_present_one(database, first_schema):
    # When
    database.migrate()
    # Then each kind of data has the time that all had together
    with database.read() as connection:
        rows = connection.execute(text("SELECT * FROM tasks")).mappings().all()
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert connection.execute(text("SELECT log_retention_seconds FROM models")).scalars().all() == [None]
    expected = {"kept": (FAR, None), "for ever": (None, None), "due": (3000, None), "gone": (3000, 4000)}
    expected["queued"] = (None, None)
    for name, (expires_at, purged_at) in expected.items():
        row = next(row for row in rows if row["id"] == first_schema[name])
        assert row["request_id"] is None
        for kind in ("input", "output", "log"):
            assert (name, row[f"{kind}_expires_at"], row[f"{kind}_purged_at"]) == (
                name,
                expires_at,
                purged_at,
            )


def test_the_service_goes_on_with_what_an_earlier_version_left(empty_url, first_schema, tmp_path):
    # When this version starts on it
    stopping = threading.Event()
    settings = Settings(
        database_url=empty_url, blob_directory=tmp_path / "blobs", key_directory=tmp_path, min_free_bytes=0
    )
    app = bootstrap(settings, stopping=stopping, upkeep=False)
    services = app.extensions["inferenceserver"]
    admin, worker = ((tmp_path / f"{name}.key").read_text().strip() for name in ("admin", "worker"))
    api = Api(app, services, tmp_path, admin, worker)
    try:
        # Then what was gone still is, what was queued runs, and new tasks come in
        assert {name: api.task(task)["data_expired"] for name, task in first_schema.items()} == {
            "kept": False, "for ever": False, "due": False, "gone": True, "queued": False,
        }  # fmt: skip
        problem(api.call("GET", f"/v1/tasks/{first_schema['gone']}/output"), "output_expired", 410)
        assert api.claim()["task_id"] == first_schema["queued"]
        assert api.submit(body=zip_of(a="new")).status_code == 202
        assert api.claim()["attempt"] == 1
    finally:
        stopping.set()
        services.database.engine.dispose()


def test_several_processes_may_migrate_at_once(empty_url):
    databases = [Database(empty_url) for _ in range(4)]
    with ThreadPoolExecutor(len(databases)) as threads:
        outcomes = [threads.submit(database.migrate) for database in databases]
    for database, outcome in zip(databases, outcomes, strict=True):
        outcome.result()
        database.check()
        database.engine.dispose()


def test_a_failing_migration_leaves_the_database_as_it_was(database, first_schema):
    # Given something in the way of the migration's last steps
    with database.write() as connection:
        connection.execute(text("CREATE INDEX idempotency_by_age ON idempotency (created_at)"))
    # When
    with pytest.raises(Exception, match="idempotency_by_age"):
        database.migrate()
    # Then nothing of it happened, and it can be done again once the way is free
    with database.write() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["0001"]
        kept = connection.execute(text("SELECT count(*) FROM tasks WHERE expires_at > 3999")).scalar()
        assert kept == 1
        connection.execute(text("DROP INDEX idempotency_by_age"))
    database.migrate()


def test_a_newer_schema_stops_the_service_with_one_line_and_is_left_alone(database, empty_url, tmp_path):
    # Given a database of a later version
    database.migrate()
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("ALTER TABLE tasks ADD COLUMN of_the_future INTEGER"))
    before = _everything(database)
    with pytest.raises(NewerSchemaError, match="9999"):
        database.migrate()
    # When the service is started on it
    service = Service("private_api", _environment(tmp_path, empty_url), tmp_path / "log")
    service.start()
    service._process.wait(90)
    # Then
    assert service.exit_status not in {0, None}
    last = service.last_lines().splitlines()[-1]
    assert "made by a newer version" in last
    assert "upgrade the service or restore a backup" in last
    assert "Traceback" not in service.last_lines()
    assert _everything(database) == before
    assert not (tmp_path / "admin.key").exists()


def _environment(tmp_path, url):
    return {
        "DATABASE_URL": url,
        "PRIVATE_API_BIND": "127.0.0.1:0",
        "BLOB_DIRECTORY": str(tmp_path / "blobs"),
        "KEY_DIRECTORY": str(tmp_path),
    }


def _everything(database):
    names = sorted(inspect(database.engine).get_table_names())
    with database.read() as connection:
        return {name: connection.execute(text(f'SELECT * FROM "{name}"')).all() for name in names}
