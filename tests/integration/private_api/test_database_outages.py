"""A database that is not there: at the start, under way, frozen, or with other passwords than ours.

The service is a real process, and the PostgreSQL server one that these tests may stop.
"""

import secrets
import threading
import time

import pytest
import requests
from sqlalchemy.engine import make_url

from contracts.timing import LEASE_SECONDS
from tests.integration.private_api.callers import zip_of
from tests.rig.databases import create_database, session
from tests.rig.parts import start_postgres
from tests.rig.polling import eventually
from tests.rig.ports import free_ports
from tests.rig.processes import Service

CONNECTIONS = 6
TASK = "0" * 32
ROUTES = [
    ("GET", "/v1/tasks"),
    ("POST", "/v1/tasks?model_human_readable_id=echo"),
    ("GET", f"/v1/tasks/{TASK}"),
    ("DELETE", f"/v1/tasks/{TASK}"),
    ("GET", f"/v1/tasks/{TASK}/input"),
    ("GET", f"/v1/tasks/{TASK}/output"),
    ("GET", f"/v1/tasks/{TASK}/logs"),
    ("POST", f"/v1/tasks/{TASK}/cancel"),
    ("POST", f"/v1/tasks/{TASK}/retry"),
    ("GET", "/v1/models"),
    ("POST", "/v1/models"),
    ("GET", "/v1/models/echo"),
    ("PATCH", "/v1/models/echo"),
    ("DELETE", "/v1/models/echo"),
    ("GET", "/v1/keys"),
    ("POST", "/v1/keys"),
    ("DELETE", "/v1/keys/x"),
    ("POST", "/v1/leases"),
    ("POST", f"/v1/leases/{TASK}/heartbeat"),
    ("POST", f"/v1/leases/{TASK}/logs"),
    ("GET", f"/v1/leases/{TASK}/input"),
    ("GET", f"/v1/leases/{TASK}/content"),
    ("PUT", f"/v1/leases/{TASK}/output"),
    ("POST", f"/v1/leases/{TASK}/complete"),
    ("POST", f"/v1/leases/{TASK}/fail"),
]

pytestmark = pytest.mark.timeout(180)


class PrivateApi:
    """The service as a process, on a database whose password it is given apart from the address."""

    def __init__(self, directory, url, **settings):
        self.directory = directory
        directory.mkdir(exist_ok=True)
        parsed = make_url(url)
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.password = parsed.password
        password_file = directory / "database-password"
        password_file.write_text(f"{parsed.password}\n")
        environment = {
            "PRIVATE_API_BIND": f"127.0.0.1:{port}",
            "DATABASE_URL": parsed.set(password=None).render_as_string(),
            "DATABASE_PASSWORD_FILE": str(password_file),
            "DATABASE_CONNECTIONS": str(CONNECTIONS),
            "BLOB_DIRECTORY": str(directory / "blobs"),
            "KEY_DIRECTORY": str(directory),
            "MIN_FREE_BYTES": "0",
            **settings,
        }
        self.service = Service("private_api", environment, directory / "log")

    def start(self):
        self.service.start()
        return self

    def wait_until_ready(self, seconds=40):
        eventually(self._ready, seconds, f"{self.url}/readyz answers 200", every=0.1)
        return self

    def _ready(self):
        assert self.service.running, self.service.last_lines()
        try:
            return requests.get(f"{self.url}/readyz", timeout=30).status_code == 200
        except requests.ConnectionError:
            return False

    def said(self, text):
        return text in self.service.last_lines(400)

    def ended(self, seconds=40):
        """The lines of a service that could not start."""
        eventually(lambda: not self.service.running, seconds, "the service ends", every=0.1)
        assert self.service.exit_status != 0
        return self.service.last_lines(400)

    def call(self, method, path, *, key="admin", timeout=60, **arguments):
        secret = (self.directory / f"{key}.key").read_text().strip()
        headers = {"Authorization": f"Bearer {secret}", **arguments.pop("headers", {})}
        return requests.request(method, self.url + path, headers=headers, timeout=timeout, **arguments)

    def register(self):
        answer = self.call("POST", "/v1/models", json={"human_readable_id": "echo", "container_tag": "e:1"})
        assert answer.status_code in {201, 409}, answer.text

    def submit(self, **arguments):
        path = "/v1/tasks?model_human_readable_id=echo"
        return self.call("POST", path, data=zip_of(a="hi"), **arguments)

    def claim(self, wait_seconds=0):
        wanted = {"node": "n", "slot": "cpu-0", "kinds": ["cpu"], "wait_seconds": wait_seconds}
        return self.call("POST", "/v1/leases", key="worker", json=wanted)


@pytest.fixture(scope="module")
def part():
    part = start_postgres()
    yield part
    part.remove()


@pytest.fixture(scope="module")
def shared(part, tmp_path_factory):
    """One service for the tests in which the database goes away under way: none of them restarts it."""
    api = PrivateApi(tmp_path_factory.mktemp("outages") / "state", part.url).start().wait_until_ready()
    yield api
    api.service.stop()


@pytest.fixture
def api(part, shared):
    """The shared service, with a database that answers."""
    pid = shared.service.pid
    shared.register()
    yield shared
    assert shared.service.running
    assert shared.service.pid == pid, "it was restarted"


@pytest.fixture
def fresh(part, tmp_path):
    """Makes services of a test's own."""
    made = []

    def make(url=part.url, **settings):
        made.append(PrivateApi(tmp_path / f"state-{len(made)}", url, **settings))
        return made[-1]

    yield make
    for api in made:
        api.service.stop()


def test_a_database_that_is_absent_at_the_start_is_waited_for(part, fresh):
    # Given
    part.kill()
    try:
        api = fresh().start()
        eventually(lambda: api.said("waiting for the database"), 20, "it says what it waits for")
        # Then nothing is served in the meantime
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{api.url}/healthz", timeout=5)
    finally:
        # When
        part.start()
    # Then
    api.wait_until_ready()
    assert not api.said(api.password)


def test_a_database_that_stays_away_ends_the_start_with_one_line(fresh):
    (port,) = free_ports(1)
    api = fresh(f"postgresql+psycopg2://u:{'p' * 20}@127.0.0.1:{port}/d", START_PATIENCE_SECONDS="2").start()
    lines = api.ended()
    assert lines.splitlines()[-1].startswith(f"private_api: the database d at 127.0.0.1:{port} was not there")
    assert "Connection refused" in lines
    assert "Traceback" not in lines
    assert api.password not in lines


def test_a_wrong_password_is_said_clearly_and_may_be_mended_in_the_meantime(part, fresh):
    # Given a user whose password is not the one that the service has
    user, wrong = f"u{secrets.token_hex(4)}", secrets.token_hex(12)
    url = make_url(create_database(part))
    with session(part.url) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'other'")
        cursor.execute(f'ALTER DATABASE "{url.database}" OWNER TO {user}')
    mine = url.set(username=user, password=wrong).render_as_string(hide_password=False)
    # Then it says so, and gives up
    impatient = fresh(mine, START_PATIENCE_SECONDS="2").start()
    lines = impatient.ended()
    assert f'password authentication failed for user "{user}"' in lines.splitlines()[-1]
    assert wrong not in lines
    # When the password is set right while another waits
    patient = fresh(mine).start()
    eventually(lambda: patient.said("password authentication failed"), 20, "it says why it waits")
    with session(part.url) as connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER ROLE {user} PASSWORD '{wrong}'")
    # Then it starts
    patient.wait_until_ready()
    assert not patient.said(wrong)


def test_an_unknown_database_is_named(part, fresh):
    url = make_url(part.url).set(database="nowhere").render_as_string(hide_password=False)
    lines = fresh(url, START_PATIENCE_SECONDS="1").start().ended()
    assert 'database "nowhere" does not exist' in lines.splitlines()[-1]
    assert "Traceback" not in lines


def test_every_door_answers_503_while_the_database_is_away_and_works_again_after(part, api):
    # Given
    accepted = api.submit().json()["id"]
    part.kill()
    try:
        # Then
        for method, path in ROUTES:
            key = "worker" if "leases" in path else "admin"
            answer = api.call(method, path, key=key)
            assert (method, path, answer.status_code) == (method, path, 503), answer.text
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert (answer.json()["code"], answer.json()["retryable"]) == ("unavailable", True)
            assert int(answer.headers["Retry-After"]) >= 1
        assert requests.get(f"{api.url}/readyz", timeout=10).status_code == 503
        assert requests.get(f"{api.url}/healthz", timeout=10).status_code == 200
    finally:
        # When
        part.start()
    api.wait_until_ready()
    # Then nothing is lost, and the process is the same
    assert api.call("GET", f"/v1/tasks/{accepted}").json()["state"] == "queued"
    assert api.submit().status_code == 202
    assert not api.said(api.password)
    assert not api.said("Traceback")


def test_a_long_poll_outlives_a_restart_of_the_database(part, api):
    # Given one person who waits for a task, and one worker who waits for work
    while api.claim().status_code == 200:
        pass
    task = api.submit().json()["id"]
    lease = api.claim().json()
    answers = {}

    def wait_for_end():
        answers["person"] = api.call("GET", f"/v1/tasks/{task}", headers={"Prefer": "wait=50"})

    def wait_for_work():
        answers["worker"] = api.claim(wait_seconds=50)

    waiting = [threading.Thread(target=wait) for wait in (wait_for_end, wait_for_work)]
    for thread in waiting:
        thread.start()
    # A question asked again a second later is one of somebody who waits.
    for question in (f"%tasks.id = '{task}'%", "%tasks.kind = 'cpu'%"):
        first = eventually(lambda: _asked_at(part, question), 20, "they look", every=0.01)  # noqa: B023
        eventually(lambda: (_asked_at(part, question) or 0) > first + 0.5, 20, "again", every=0.01)  # noqa: B023
    # When the database is away for as long as it takes to look twice, which waiters do every second
    part.kill()
    eventually(lambda: _refusals(api) >= 2, 30, "requests are refused", every=1.0)
    assert all(thread.is_alive() for thread in waiting), answers
    part.start()
    api.wait_until_ready()
    failure = {"reason_code": "exit_nonzero", "reason": "no", "exit_code": 1, "durations": {}}
    token = {"Lease-Token": str(lease["token"])}
    done = api.call("POST", f"/v1/leases/{lease['lease_id']}/fail", key="worker", json=failure, headers=token)
    assert done.status_code == 200, done.text
    new = api.submit().json()["id"]
    for thread in waiting:
        thread.join(30)
    # Then both have got what they waited for
    assert answers["person"].json()["state"] == "failed"
    assert answers["worker"].json()["task_id"] == new


def _asked_at(part, question):
    """When the service last asked the database such a question, in seconds; null if none is seen."""
    with session(part.url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM max(query_start))::float FROM pg_stat_activity"
            " WHERE application_name = 'inferenceserver' AND query LIKE %s",
            [question],
        )
        return cursor.fetchone()[0]


def _refusals(api):
    return sum(api.call("GET", "/v1/tasks").status_code == 503 for _ in range(2))


def test_upkeep_goes_on_by_itself_after_an_outage(part, api):
    # Given a task whose worker has died
    task = api.submit().json()["id"]
    while api.claim().status_code == 200:
        pass
    assert api.call("GET", f"/v1/tasks/{task}").json()["state"] == "starting"
    # When the database has been away, and nobody restarts anything
    part.kill()
    part.start()
    api.wait_until_ready()
    # Then the task is given back within a lease's time and a little
    eventually(
        lambda: api.call("GET", f"/v1/tasks/{task}").json()["state"] == "queued",
        2 * LEASE_SECONDS + 15,
        "the reaper takes the task back",
        every=0.5,
    )


def test_a_frozen_database_is_answered_503_within_seconds_and_everything_works_when_it_thaws(part, api):
    # Given
    began = time.monotonic()
    part.pause()
    try:
        # When more requests come than there are connections
        answers = []
        callers = [
            threading.Thread(target=lambda: answers.append(api.call("GET", "/v1/tasks")))
            for _ in range(4 * CONNECTIONS)
        ]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join(60)
        # Then each is answered in time, and the process itself is well
        assert [answer.status_code for answer in answers] == [503] * len(callers)
        assert time.monotonic() - began < 40
        assert requests.get(f"{api.url}/healthz", timeout=5).status_code == 200
    finally:
        part.unpause()
    # And
    api.wait_until_ready()
    assert api.submit().status_code == 202


def test_a_connection_that_the_server_ends_costs_no_request(part, api):
    # Given connections that lie ready
    for _ in range(5):
        assert api.call("GET", "/v1/tasks").status_code == 200
    # When an administrator ends all of them
    with session(part.url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'inferenceserver'"
        )
        assert cursor.fetchone()[0] > 0
    # Then
    assert [api.call("GET", "/v1/tasks").status_code for _ in range(10)] == [200] * 10


def test_many_requests_share_few_connections(part, api):
    # Given far more callers than connections, some of whom wait long
    stop = threading.Event()
    seen, statuses = [], []

    def count():
        with session(part.url) as connection, connection.cursor() as cursor:
            while not stop.wait(0.02):
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'inferenceserver'"
                )
                seen.append(cursor.fetchone()[0])

    def ask(number):
        wait = {"Prefer": "wait=2"} if number % 2 else {}
        task = api.submit().json()["id"]
        statuses.append(api.call("GET", f"/v1/tasks/{task}", headers=wait).status_code)

    counter = threading.Thread(target=count)
    counter.start()
    callers = [threading.Thread(target=ask, args=(number,)) for number in range(60)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(60)
    stop.set()
    counter.join(10)
    # Then everybody is answered, over no more connections than are allowed
    assert statuses == [200] * 60
    assert 0 < max(seen) <= CONNECTIONS
