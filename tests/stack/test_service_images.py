"""Our own images: what they hold, as whom they run, and that everything in them can be imported."""

from __future__ import annotations

import json

import pytest

from setup.images import service_images
from setup.images.service_images import ServiceImage
from tests.models.images import engine
from tests.rig.containers import run_alone
from tests.rig.stack import ROOT, Stack

# Imports every module of the service's own room but its door, which would begin to serve. Of the shared rooms
# it imports what it needs, and their other needs are not installed.
_IMPORT_ALL = """
import importlib, json, os, pathlib, sys
sys.path.insert(0, ".")
names = []
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.py")):
    if path.name != "__main__.py" and "versions" not in path.parts and path.name != "env.py":
        names.append(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
        importlib.import_module(names[-1])
print(json.dumps({"uid": os.getuid(), "gid": os.getgid(), "modules": len(names)}))
"""
_FOUND = """
import json, os
unwanted = {".git", ".state", ".venv", "tests", "docs", "node_modules", ".env", "id_rsa"}
found = [os.path.join(at, name) for at, folders, files in os.walk("/opt/inferenceserver")
         for name in folders + files if name in unwanted]
print(json.dumps({"found": found, "holds": sorted(os.listdir("/opt/inferenceserver"))}))
"""


@pytest.fixture(params=service_images.ALL, ids=lambda service: service.name)
def image(request: pytest.FixtureRequest, stack_plan: Stack) -> tuple[ServiceImage, str]:
    """A service with its image, which the plan of the stack has brought up to date."""
    service: ServiceImage = request.param
    return service, service.tag(service_images.read_version(ROOT))


def run(tag: str, code: str, *arguments: str) -> dict[str, object]:
    done = run_alone(
        engine(), tag, list(arguments), entrypoint=["python", "-c", code], network_mode="none",
        read_only=True, cap_drop=["ALL"], tmpfs={"/tmp": "size=16m"},
    )  # fmt: skip
    answer: dict[str, object] = json.loads(done.checked().splitlines()[-1])
    return answer


def test_every_module_can_be_imported_by_the_images_own_user(image: tuple[ServiceImage, str]) -> None:
    service, tag = image
    room = {"proxy-admin": "proxy"}.get(service.name, service.name.replace("-", "_"))
    seen = run(tag, _IMPORT_ALL, room)
    wanted = 0 if service is service_images.CONSUMER else 10001
    assert (seen["uid"], seen["gid"]) == (wanted, wanted)
    assert int(str(seen["modules"])) > 5


def test_a_service_knows_its_version(image: tuple[ServiceImage, str]) -> None:
    service, tag = image
    if service is service_images.PROXY_ADMIN:
        return  # It serves nothing, and has no metrics.
    told = run(tag, "import json; from serving.metrics import version; print(json.dumps({'is': version()}))")
    assert told == {"is": service_images.read_version(ROOT)}


def test_an_image_holds_nothing_but_its_rooms(image: tuple[ServiceImage, str]) -> None:
    service, tag = image
    seen = run(tag, _FOUND)
    held = {path.split("/")[0] for path in service_images.context(ROOT, service)}
    assert seen == {"found": [], "holds": sorted(held - {"images", "requirements"})}


def test_no_build_wrote_a_secret_or_an_index_address_with_a_password(image: tuple[ServiceImage, str]) -> None:
    _, tag = image
    history = json.dumps(engine().api.history(tag))
    assert "@" not in "".join(part for part in history.split() if "://" in part)
    environment = engine().images.get(tag).attrs["Config"]["Env"]
    assert not [
        pair for pair in environment if any(w in pair for w in ("PASSWORD", "SECRET", "TOKEN", "_KEY="))
    ]


def test_the_consumers_image_takes_a_command_line_of_its_own(stack_plan: Stack) -> None:
    tag = service_images.CONSUMER.tag(service_images.read_version(ROOT))
    done = run_alone(engine(), tag, ["join", "--help"], network_mode="none", read_only=True)
    assert "python -m consumer join --url https://" in done.text
