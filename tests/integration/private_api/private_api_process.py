"""The private API as a process of its own, on a blob store that a test breaks."""

import socket
from pathlib import Path

import requests

from tests.rig.parts import Part
from tests.rig.polling import eventually
from tests.rig.processes import Service


class PrivateApiProcess:
    """``python -m private_api`` on SQLite and the given blob store."""

    def __init__(self, directory: Path, **environment: str) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            bind = f"127.0.0.1:{held.getsockname()[1]}"
        self.url = f"http://{bind}"
        self.directory = directory
        own = {
            "PRIVATE_API_BIND": bind,
            "DATABASE_URL": f"sqlite:///{directory}/db.sqlite",
            "BLOB_DIRECTORY": str(directory / "blobs"),
            "KEY_DIRECTORY": str(directory),
            "MIN_FREE_BYTES": "0",
        }
        self.service = Service("private_api", {**own, **environment}, directory / "private_api.log")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.service.running:
            self.service.kill()

    @property
    def log(self) -> str:
        return self.service.last_lines(200)

    def start(self, seconds=30):
        self.service.start()
        self.await_ready(seconds)
        return self

    def await_ready(self, seconds=30):
        def is_ready():
            assert self.service.running, self.log
            try:
                return requests.get(f"{self.url}/readyz", timeout=10).status_code == 200
            except requests.ConnectionError:
                return False

        eventually(is_ready, seconds, "the private API is ready")

    def await_end(self, seconds=30) -> int:
        """Its exit status."""
        eventually(lambda: not self.service.running, seconds, "the private API has given up")
        assert self.service.exit_status is not None
        return self.service.exit_status

    def key(self, role: str) -> str:
        return (self.directory / f"{role}.key").read_text().strip()

    def call(self, method, path, *, role="admin", **arguments):
        headers = {"Authorization": f"Bearer {self.key(role)}", **arguments.pop("headers", {})}
        arguments = {"timeout": 60, "allow_redirects": False, **arguments}
        return requests.request(method, self.url + path, headers=headers, **arguments)

    def submit(self, body: bytes):
        return self.call("PUT", "/v1/tasks?model_human_readable_id=echo", data=body)

    def register(self):
        fields = {"human_readable_id": "echo", "container_tag": "echo:1"}
        assert self.call("POST", "/v1/models", json=fields).status_code == 201

    def finished_task(self, output: bytes) -> str:
        """The id of a task that succeeded with ``output``, the whole way through the worker's doors."""
        assert self.submit(SMALL_ZIP).status_code == 202
        wanted = {"node": "n", "slot": "cpu-0", "kinds": ["cpu"], "wait_seconds": 10}
        lease = self.call("POST", "/v1/leases", role="worker", json=wanted).json()
        path, headers = f"/v1/leases/{lease['lease_id']}", {"Lease-Token": str(lease["token"])}
        stored = self.call("PUT", f"{path}/output", role="worker", headers=headers, data=output)
        assert stored.status_code == 200, stored.text
        done = {"output": stored.json(), "exit_code": 0, "durations": {}}
        answer = self.call("POST", f"{path}/complete", role="worker", headers=headers, json=done)
        assert answer.status_code == 200, answer.text
        return lease["task_id"]


# An empty zip: the end record and nothing else.
SMALL_ZIP = b"PK\x05\x06" + bytes(18)


def s3_environment(part: Part, bucket: str, **more: str) -> dict[str, str]:
    """What the private API needs to use ``bucket`` of ``part``."""
    return {
        "BLOB_STORE": "s3",
        "S3_ENDPOINT": part.url,
        "S3_BUCKET": bucket,
        "S3_ACCESS_KEY": part.user,
        "S3_SECRET_KEY": part.password,
        **more,
    }
