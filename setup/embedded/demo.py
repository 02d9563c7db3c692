"""`make demo`: from a bare machine to a result in hand, one announced step after the other.

Enters every other module of this room in the order in which a reader would do it by hand. A second run finds
nearly everything done.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shlex
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

from setup.console import SetupError, detail, say, step
from setup.embedded import server
from setup.embedded.native_api import NativeApi
from setup.embedded.registration import Wanted, next_change
from setup.engine import engine
from setup.host import machine
from setup.images import base_image, example_images
from setup.images.example_images import Example
from setup.places import Places

MODEL = "digits"
SHOWN_ROWS = 5
QUEUED_SECONDS = 60
ENDED = {"succeeded", "failed", "canceled"}


def run(places: Places, port: int) -> None:
    """Everything, then a task, then what the reader can do next."""
    started = time.monotonic()
    places.make()
    server.check_place(places, port)
    example, host = prepare(places)
    address = server.ensure(places, port, host)
    api = NativeApi(address, places.admin_key.read_text().strip())
    register(api, example)
    result = run_task(api, example, places)
    show_result(result, places)
    say(f"\nThe whole demo took {time.monotonic() - started:.1f} s.")
    say(farewell(address, places, example))


def prepare(places: Places) -> tuple[Example, str]:
    """An engine, and the images that the demo needs on it."""
    this_machine = machine.look()
    host = engine.ensure(places, this_machine, os.environ)
    client = engine.connect(host)
    try:
        base_image.ensure(client, places, this_machine, os.environ)
        return example_images.ensure(client, places, os.environ), host
    finally:
        client.close()


def register(api: NativeApi, example: Example) -> None:
    """Make the registered model the one that was built; nothing is sent when it is that already."""
    wanted = Wanted(
        human_readable_id=MODEL,
        description="Reads handwritten digits from pictures",
        container_tag=example.container_tag,
        image_id=example.image_id,
        content_sha256=hashlib.sha256(example.model_zip.read_bytes()).hexdigest(),
    )
    change = next_change(api.find_model(MODEL), wanted)
    if change.is_nothing:
        detail(f"the model {MODEL} is registered already")
        return
    done = "Registering" if change.create else "Updating"
    with step(f"{done} the model {MODEL} (image {example.container_tag}, weights {example.model_zip})"):
        model = api.change_model(MODEL, change, example.model_zip)
        detail(f"version {model['version']}")


def run_task(api: NativeApi, example: Example, places: Places) -> Path:
    """Send the sample pictures, show what happens, and fetch the result into a folder of its own."""
    folder = places.state / "demo"
    task_zip = pack_pictures(example.samples, folder / "task.zip")
    count = len(list(example.samples.iterdir()))
    with step(f"Sending a task: {count} handwritten digits that training never saw"):
        task = api.submit(MODEL, task_zip)
        detail(f"task {task['id']}")
        ended = show_live(api, task["id"], places)
    if ended["state"] != "succeeded":
        raise SetupError(f"The task ended as {ended['state']} ({ended['reason_code']}): {ended['reason']}")
    result = folder / "result"
    shutil.rmtree(result, ignore_errors=True)
    result.mkdir(parents=True)
    api.download(task["id"], folder / "result.zip")
    with zipfile.ZipFile(folder / "result.zip") as archive:
        archive.extractall(result)  # Our own server wrote it, and zipfile keeps names inside.
    return result


def pack_pictures(samples: Path, target: Path) -> Path:
    """The sample pictures as a task's zip."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(samples.iterdir()):
            archive.write(path, path.name)
    return target


def show_live(api: NativeApi, task_id: str, places: Places) -> dict[str, Any]:
    """Print state and progress when they change, and log lines as they come; the ended task."""
    shown, unfinished, task = "", b"", {}
    deadline = time.monotonic() + QUEUED_SECONDS
    for moment in api.follow(task_id):
        task = moment.task
        *lines, unfinished = (unfinished + moment.new_log).split(b"\n")
        for line in lines:
            detail(f"  | {line.decode(errors='replace')}")
        if (now := status_line(task)) != shown:
            detail(now)
            shown = now
        if task["state"] == "queued" and time.monotonic() > deadline:
            raise SetupError(
                f"No consumer took the task within {QUEUED_SECONDS} s; the last lines of its log say why:\n"
                + "\n".join(server.last_words(places, "consumer"))
            )
    return task


def status_line(task: dict[str, Any]) -> str:
    """State and progress of a task on one line."""
    parts = [task["state"]]
    if task["state"] in ENDED:
        return str(task["state"])  # The last progress that was reported would only look unfinished.
    if task.get("waiting_for"):
        parts.append(f"waiting for {task['waiting_for']}")
    progress = task.get("progress") or {}
    if progress.get("fraction") is not None:
        parts.append(f"{progress['fraction']:.0%}")
    if progress.get("message"):
        parts.append(progress["message"])
    return " · ".join(parts)


def show_result(result: Path, places: Places) -> None:
    """Where the result lies, what is in it, and how it begins."""
    files = sorted(path for path in result.rglob("*") if path.is_file())
    say(f"\nThe result lies in {places.shown(result)}:")
    for path in files:
        detail(f"{path.relative_to(result)}  ({path.stat().st_size:,} bytes)")
    table = result / "predictions.csv"
    rows = list(csv.reader(io.StringIO(table.read_text())))
    say("\nIts first lines:")
    for row in rows[: SHOWN_ROWS + 1]:
        detail(",".join(row))
    if len(rows) > SHOWN_ROWS + 1:
        detail(f"… and {len(rows) - SHOWN_ROWS - 1} more")


def farewell(address: str, places: Places, example: Example) -> str:
    """The exact lines for the reader's own first task."""
    key = shlex.quote(places.shown(places.admin_key))
    task = shlex.quote(places.shown(places.state / "demo" / "task.zip"))
    samples = shlex.quote(places.shown(example.samples))
    return f"""
The server goes on running on {address}. Your own first task, with curl:

  KEY=$(cat {key})
  curl -H "Authorization: Bearer $KEY" -H 'Prefer: wait=60' -H 'Accept: application/zip' \\
    -T {task} '{address}/v1/tasks?model_human_readable_id={MODEL}' -o result.zip

Or step by step: send it, ask how it is, fetch the result.

  curl -H "Authorization: Bearer $KEY" {address}/v1/tasks \\
    -F model_human_readable_id={MODEL} -F zip_file=@{task}
  curl -H "Authorization: Bearer $KEY" {address}/v1/tasks/ID
  curl -H "Authorization: Bearer $KEY" {address}/v1/tasks/ID/output -o result.zip

Or with the client, which packs, waits and unpacks by itself:

  export INFER_SERVER={address} INFER_KEY_FILE={key}
  .venv/bin/infer run {MODEL} {samples} -o results

The sample pictures are in {samples}; model_template/README.md says how to add a model of your own.
`make down` stops the server; `make engine-down` stops the container engine if it was started here.
"""
