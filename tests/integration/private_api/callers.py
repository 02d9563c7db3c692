"""How the tests speak to the private API: as a person with a key, and as a worker."""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass

from private_api.http.services import Services


def zip_of(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            # Dated, so that the same files make the same bytes at any second.
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()


@dataclass
class Api:
    """A caller with a key, and a worker with another."""

    app: object
    services: Services
    directory: object
    admin: str
    worker: str

    def call(self, method, path, *, key=None, **arguments):
        headers = {"Authorization": f"Bearer {key or self.admin}", **arguments.pop("headers", {})}
        # Buffered: the whole answer is read and closed, as a server does.
        arguments = {"buffered": True, **arguments}
        return self.app.test_client().open(path, method=method, headers=headers, **arguments)

    def register(self, name="echo", **fields):
        answer = self.call(
            "POST", "/v1/models", json={"human_readable_id": name, "container_tag": "echo:1", **fields}
        )
        assert answer.status_code == 201, answer.text
        return answer.json

    def submit(self, model="echo", body=None, **arguments):
        body = zip_of(a="hi") if body is None else body
        return self.call(
            "POST",
            f"/v1/tasks?model_human_readable_id={model}",
            data=body,
            content_type="application/zip",
            **arguments,
        )

    def key_of(self, role, name="somebody"):
        answer = self.call("POST", "/v1/keys", json={"name": name, "role": role})
        assert answer.status_code == 201, answer.text
        return answer.json["key"]

    def claim(self, wait_seconds=0, kinds=("cpu",), slot="cpu-0", node="n"):
        wanted = {"node": node, "slot": slot, "kinds": list(kinds), "wait_seconds": wait_seconds}
        answer = self.call("POST", "/v1/leases", key=self.worker, json=wanted)
        assert answer.status_code in {200, 204}, answer.text
        return answer.json if answer.status_code == 200 else None

    def about(self, lease, verb, method="POST", token=None, **arguments):
        headers = {"Lease-Token": str(token or lease["token"])}
        path = f"/v1/leases/{lease['lease_id']}/{verb}"
        return self.call(method, path, key=self.worker, headers=headers, **arguments)

    def beat(self, lease, phase="running", **fields):
        return self.about(lease, "heartbeat", json={"phase": phase, "wait_seconds": 0, **fields})

    def finish(self, lease, body=None):
        body = zip_of(out="done") if body is None else body
        stored = self.about(lease, "output", "PUT", data=body)
        assert stored.status_code == 200, stored.text
        assert stored.json == {"size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        answer = self.about(
            lease, "complete", json={"output": stored.json, "exit_code": 0, "durations": {"running": 0.1}}
        )
        assert answer.status_code == 200, answer.text
        return body

    def fail(self, lease, code, reason="It failed.", exit_code=None):
        failure = {"reason_code": code, "reason": reason, "exit_code": exit_code, "durations": {}}
        answer = self.about(lease, "fail", json=failure)
        assert answer.status_code == 200, answer.text

    def task(self, task_id, **arguments):
        answer = self.call("GET", f"/v1/tasks/{task_id}", **arguments)
        assert answer.status_code == 200, answer.text
        return answer.json

    def blobs(self):
        if self.services.settings.blob_store == "s3":
            return sorted(self.services.blobs.keys_older_than(-60))
        root = self.services.settings.blob_directory
        return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())


def problem(answer, code, status):
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    document = json.loads(answer.text)
    assert document["code"] == code
    assert document["status"] == status
    return document
