"""From an archive to a server where there is no network at all, and from that to the next release.

One machine goes through these tests in their order, as a machine of an operator would: what is refused leaves
it as it was, so that the next step finds it so.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundle.conftest import Bundle, Machine, Maker
from tests.models.images import engine, image_of
from tests.rig.containers import run_inside
from tests.rig.spdx import check_spdx
from tests.rig.stack import ROOT
from tests.rig.zips import files_of, zip_of

pytestmark = pytest.mark.timeout(600)
# A change of code is a few files; a bundle that brings it must not bring a Debian again.
SMALL_BYTES = 4_000_000


@pytest.fixture(scope="module")
def update(maker: Maker, whole: Bundle) -> Iterator[Bundle]:
    """The bundle of a later release, in which one service changed: what changed since the first."""
    tag = "inferenceserver-test-bundle/public-api:later"
    now = whole.manifest["settings"]["PUBLIC_API_IMAGE"]
    recipe = f"FROM {now}\nUSER 0\nRUN echo later >/opt/inferenceserver/later\nUSER 10001:10001\n"
    engine().images.build(fileobj=io.BytesIO(recipe.encode()), tag=tag, rm=True, forcerm=True, nocache=True)
    try:
        yield maker.make("update", {"SINCE": str(whole.archive), "PUBLIC_API_IMAGE": tag})
    finally:
        engine().images.remove(tag, force=True)


@pytest.fixture(scope="module")
def task(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A task that ended well on the first release."""
    model = {"human_readable_id": "echo", "container_tag": image_of("echo"), "memory_bytes": 128 * 1024**2}
    json_body = ["--header", "Content-Type: application/json", "--data", json.dumps(model)]
    machine.ask("/v1/models", *json_body)
    return run_task(machine, tmp_path_factory.mktemp("task"), b"before")


def run_task(machine: Machine, folder: Path, content: bytes) -> dict[str, str]:
    packed = folder / "task.zip"
    packed.write_bytes(zip_of({"a.txt": content}))
    sent = machine.ask(
        "/v1/tasks", "--form", "model_human_readable_id=echo", "--form", f"zip_file=@{packed}",
        "--header", "Prefer: wait=60",
    )  # fmt: skip
    made: dict[str, str] = json.loads(sent)
    ended: dict[str, str] = json.loads(machine.ask(f"/v1/tasks/{made['id']}", "--header", "Prefer: wait=60"))
    assert ended["state"] == "succeeded", ended
    return ended


def test_the_machine_has_no_way_out(machine: Machine) -> None:
    routes = subprocess.run(
        machine.engine.inside(["ip", "route", "show"]), capture_output=True, text=True, check=True
    )
    assert "default" not in routes.stdout
    devices = subprocess.run(
        machine.engine.inside(["ip", "-o", "link"]), capture_output=True, text=True, check=True
    )
    assert {line.split(": ")[1] for line in devices.stdout.splitlines()} <= {"lo", "docker0"}


def test_what_changed_is_no_use_without_what_it_changes(
    machine: Machine, whole: Bundle, update: Bundle
) -> None:
    said = machine.install(update.folder, status=1)
    # It names the bundle that is missing
    assert f"since {whole.manifest['release']}" in said.splitlines()[-1]
    assert "Install that bundle first" in said
    assert machine.images() == {}
    assert not machine.state.exists()


def test_a_damaged_bundle_changes_nothing(machine: Machine, whole: Bundle, tmp_path: Path) -> None:
    # Given one byte of one layer that is not what was packed
    layer = max((whole.folder / "images" / "layers").iterdir(), key=lambda path: path.stat().st_size)
    with layer.open("r+b") as file:
        file.seek(layer.stat().st_size // 2)
        before = file.read(1)
        file.seek(-1, io.SEEK_CUR)
        file.write(bytes([before[0] ^ 1]))
    try:
        said = machine.install(whole.folder, status=1)
    finally:
        with layer.open("r+b") as file:
            file.seek(layer.stat().st_size // 2)
            file.write(before)
    # Then one line names the file
    assert [line for line in said.splitlines() if line.startswith("error:")] == said.splitlines()[-1:]
    assert layer.name in said
    # And one that was cut off, by however much, says that it is one
    with whole.archive.open("rb") as file:
        cut = tmp_path / "cut.tar"
        cut.write_bytes(file.read(2_000_000))
    (tmp_path / "cut").mkdir()
    subprocess.run(["tar", "-xf", cut, "-C", tmp_path / "cut"], capture_output=True, check=False)
    [unpacked] = (tmp_path / "cut").iterdir()
    assert "not complete" in machine.install(unpacked, status=1)
    assert machine.images() == {}
    assert not machine.state.exists()


def test_a_node_takes_the_images_alone(machine: Machine, whole: Bundle, tmp_path: Path) -> None:
    # When, with the archive as it came
    shutil.copy(whole.archive, tmp_path / "bundle.tar")
    said = machine.run(str(ROOT / "setup" / "bundle" / "load.sh"), str(tmp_path / "bundle.tar"))
    # Then every image is the one that was packed, nothing runs, and the archive was all that it took
    assert "are on this engine" in said
    assert {image["tag"]: image["id"] for image in whole.manifest["images"]} == machine.images()
    assert machine.engine.client.containers.list(all=True) == []
    assert not machine.state.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.tar"]


def test_an_archive_becomes_a_server(machine: Machine, whole: Bundle) -> None:
    # When, its images loaded or not
    said = machine.install(whole.folder, "CPU_SLOTS=1", "GPUS=none")
    # Then it answers over TLS, and says how to go on
    assert json.loads(machine.ask("/v1/models"))["items"] == []
    assert f"{machine.state}/inferenceserver stack-status" in said
    assert "make " not in said
    assert (machine.state / "admin.key").read_text().strip() not in said
    # And its own commands go on from there, without the bundle's directory
    assert "All is ready" in machine.serve("stack-status")


def test_a_second_time_changes_nothing(machine: Machine, whole: Bundle, task: dict[str, str]) -> None:
    before = running(machine)
    said = machine.install(whole.folder)
    assert "on the engine already" in said
    assert running(machine) == before


def test_a_change_of_one_service_is_a_small_bundle(whole: Bundle, update: Bundle) -> None:
    assert update.archive.stat().st_size < SMALL_BYTES < whole.archive.stat().st_size / 20
    assert update.manifest["since"] == whole.manifest["release"]
    # Though it brings one image, it knows all of the release.
    assert len(update.manifest["images"]) == len(whole.manifest["images"])
    # And of what the first one brought it repeats nothing.
    [service] = [image for image in update.manifest["images"] if "public-api:later" in image["tag"]]
    assert service["layers"][-1] in update.manifest["brought"]
    assert not set(update.manifest["brought"]) & set(whole.manifest["layers"])
    assert len(update.manifest["brought"]) == len(list((update.folder / "images" / "layers").iterdir()))


def test_the_next_bundle_upgrades_and_loses_nothing(
    machine: Machine, update: Bundle, task: dict[str, str], tmp_path: Path
) -> None:
    # Given
    key = (machine.state / "admin.key").read_text()
    database = running(machine)["postgres"]
    # When
    machine.install(update.folder)
    # Then the service is the later one, and what did not change runs on
    [service] = machine.engine.client.containers.list(
        filters={"label": "com.docker.compose.service=public_api"}
    )
    assert run_inside(service, ["cat", "later"]).checked() == b"later\n"
    assert running(machine)["postgres"] == database
    # And data, keys and settings are what they were
    assert (machine.state / "admin.key").read_text() == key
    assert "CPU_SLOTS=1" in (machine.state / "stack.env").read_text()
    assert files_of(machine.ask(f"/v1/tasks/{task['id']}/output")) == {"a.txt": b"before"}
    run_task(machine, tmp_path, b"after")


def test_its_commands_are_those_of_a_checkout(machine: Machine, task: dict[str, str], tmp_path: Path) -> None:
    # The client, as the first admin and where it is called
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.txt").write_bytes(b"by the client")
    machine.serve("infer", "run", "echo", "folder", "-o", "results", cwd=tmp_path)
    assert (tmp_path / "results" / "b.txt").read_bytes() == b"by the client"
    # Domains, and a backup, which is the caller's
    assert "localhost" in machine.serve("proxy", "ARGS=domains list")
    assert "is whole" in machine.serve("backup", f"TO={tmp_path / 'backup'}")
    assert (tmp_path / "backup" / "MANIFEST.json").is_file()
    # And what it cannot do it says in a line
    assert "no setting HTTPS_PROT" in machine.serve("stack-up", "HTTPS_PROT=1", status=1)
    assert "no command demo" in machine.serve("demo", status=1)
    # At the end nothing of it is left but the keys
    machine.serve("stack-down", "PURGE=1")
    assert running(machine) == {}
    assert machine.engine.client.volumes.list() == []


def running(machine: Machine) -> dict[str, str]:
    """The ids of the server's containers by service."""
    found = machine.engine.client.containers.list(filters={"label": "com.docker.compose.service"})
    return {container.labels["com.docker.compose.service"]: container.id for container in found}


def test_a_bundle_can_be_checked_without_us(whole: Bundle) -> None:
    sums = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=whole.folder, capture_output=True, check=False
    )
    assert sums.returncode == 0, sums.stdout
    listed = {line.split("  ")[1] for line in (whole.folder / "SHA256SUMS").read_text().splitlines()}
    there = {path.relative_to(whole.folder).as_posix() for path in whole.folder.rglob("*") if path.is_file()}
    assert there - listed == {"SHA256SUMS"}
    beside = whole.archive.with_name(f"{whole.archive.name}.sha256")
    subprocess.run(["sha256sum", "-c", beside.name], cwd=beside.parent, check=True, capture_output=True)


def test_its_bill_of_materials_is_of_what_is_in_it(whole: Bundle) -> None:
    document = json.loads((whole.folder / "sbom.spdx.json").read_text())
    check_spdx(document)
    names = {package["SPDXID"]: package["name"] for package in document["packages"]}
    held: dict[str, set[str]] = {}
    for relation in document["relationships"]:
        held.setdefault(names.get(relation["spdxElementId"], ""), set()).add(
            names[relation["relatedSpdxElement"]]
        )
    settings = whole.manifest["settings"]
    # Each image is there with what makes it what it is, by whichever package manager.
    assert {image["tag"].rpartition(":")[0] for image in whole.manifest["images"]} <= held["inferenceserver"]
    assert {"SQLAlchemy", "libc6", "psycopg2-binary"} <= held[
        settings["PRIVATE_API_IMAGE"].rpartition(":")[0]
    ]
    assert {"docker-compose", "docker", "click"} <= held[whole.manifest["setup_image"].rpartition(":")[0]]


def test_nothing_in_it_is_this_machines_own(whole: Bundle) -> None:
    """Of its own files: what images remember is theirs."""
    words = [str(ROOT), str(whole.archive.parent), f"{Path.home()}/", "PIP_INDEX_URL=", "isk_"]
    texts = [path for path in whole.folder.rglob("*") if path.is_file() and path.suffix != ".gz"]
    texts = [path for path in texts if "configurations" not in path.parts]
    assert len(texts) > 10
    found = [(path.name, word) for path in texts for word in words if word in path.read_text()]
    assert found == []
