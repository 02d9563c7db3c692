"""GPUs without a GPU: what NVIDIA's container toolkit adds to an engine, as stand-ins that keep a record.

An engine that finds an ``nvidia-container-runtime-hook`` takes device requests, and has the hook run with
each such container's state before its program starts. An administrator may also make NVIDIA's runtime the
default one: then every container whose environment asks for devices gets them, whoever put it there. Here
both write down which devices which container got, and put an ``nvidia-smi`` into its root that shows those.

A test gives ``programs`` and ``flags`` to an engine of its own. Sources: Docker's ``nvidia_linux.go`` and the
toolkit's documentation of ``NVIDIA_VISIBLE_DEVICES``, of which the last in the list counts.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_HOOK = "nvidia-container-runtime-hook"
_RUNTIME = "nvidia-container-runtime"

# Runs on the engine's side. A container may be shown to both ways; the second finds that all is done.
_RECORDER = """#!{python} -IS
import json, os, sys
way = sys.argv[1]
if way == "prestart":
    state = json.load(sys.stdin)
    bundle, container = state["bundle"], state["id"]
else:
    bundle, container = sys.argv[2], os.path.basename(sys.argv[2])
with open(os.path.join(bundle, "config.json")) as file:
    spec = json.load(file)
environment = dict(variable.partition("=")[::2] for variable in spec["process"]["env"])
# An administrator may have made the toolkit listen to this one as well; it then comes first.
devices = environment.get("DOCKER_RESOURCE_GPU") or environment.get("NVIDIA_VISIBLE_DEVICES", "")
if devices in ("", "void", "none"):
    sys.exit(0)
with open("{record}", "a") as record:
    record.write(json.dumps([container, devices, way]) + "\\n")
root = spec["root"]["path"]
root = root if os.path.isabs(root) else os.path.join(bundle, root)
place = os.path.join(root, "usr/bin" if os.path.isdir(os.path.join(root, "usr/bin")) else "bin", "nvidia-smi")
with open(place, "w") as file:
    file.write(open("{smi}").read().replace("@DEVICES@", devices))
os.chmod(place, 0o755)
"""

# Runs on the engine's side as the default runtime: records, and leaves the rest to the real one.
_WRAPPER = """#!/bin/sh
previous= bundle= creates=
for word; do
    [ "$previous" = --bundle ] && bundle=$word
    [ "$word" = create ] && creates=1
    previous=$word
done
[ -z "$creates" ] || "{recorder}" runtime "$bundle" || exit 1
exec "{runc}" "$@"
"""

# Runs in the container. What it was given is written into it: no variable of the model's can change that.
_SMI = """#!/bin/sh
devices=,@DEVICES@,
shows() { case $devices in ,all,|*,$1,*) return 0 ;; esac; return 1; }
case $1 in
-L)
%(listing)s    ;;
--query-gpu=uuid,name,memory.total)
%(table)s    ;;
*) echo "nvidia-smi: no stand-in for $*" >&2; exit 2 ;;
esac
"""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One simulated GPU, or with ``mig`` one that is cut into devices: their UUIDs, and profiles."""

    uuid: str
    name: str
    memory_mib: int
    mig: Mapping[str, str] | None = None

    @property
    def devices(self) -> list[str]:
        """The UUIDs that a container can be given."""
        return list(self.mig or [self.uuid])


GPUS = (
    Gpu(uuid="GPU-aaaa1111-0000-0000-0000-000000000001", name="Stand-in 24", memory_mib=24576),
    Gpu(uuid="GPU-bbbb2222-0000-0000-0000-000000000002", name="Stand-in 24", memory_mib=24576),
    Gpu(
        uuid="GPU-cccc3333-0000-0000-0000-000000000003",
        name="Stand-in 80",
        memory_mib=81920,
        mig={
            "MIG-dddd4444-0000-0000-0000-000000000004": "3g.40gb",
            "MIG-eeee5555-0000-0000-0000-000000000005": "1g.10gb",
        },
    ),
)
DEVICES = tuple(device for gpu in GPUS for device in gpu.devices)


@dataclass(frozen=True, kw_only=True)
class Handed:
    """What one container got, and how: ``prestart`` is a device request, ``runtime`` its environment."""

    container_id: str
    devices: tuple[str, ...]
    way: str


class StandInGpus:
    """The toolkit of one engine, in ``directory``."""

    def __init__(self, directory: Path, gpus: Iterable[Gpu] = GPUS) -> None:
        self.programs = directory / "programs"
        self.programs.mkdir(parents=True)
        self._record = directory / "handed"
        self._record.touch()
        smi = directory / "nvidia-smi"
        smi.write_text(_smi(gpus))
        recorder = self.programs / _HOOK
        recorder.write_text(_RECORDER.format(python=sys.executable, record=self._record, smi=smi))
        runc = shutil.which("runc")
        assert runc is not None, "the tests' engines need runc"
        wrapper = self.programs / _RUNTIME
        wrapper.write_text(_WRAPPER.format(recorder=recorder, runc=runc))
        for program in (recorder, wrapper):
            program.chmod(0o755)
        # The strictest case: an engine whose default runtime hears what images ask for.
        self.flags = ["--add-runtime", f"nvidia={wrapper}", "--default-runtime", "nvidia"]

    def handed(self) -> list[Handed]:
        """Every container that got devices so far, in order."""
        found = []
        for line in self._record.read_text().splitlines():
            container_id, devices, way = json.loads(line)
            found.append(Handed(container_id=container_id, devices=tuple(devices.split(",")), way=way))
        return found


def _smi(gpus: Iterable[Gpu]) -> str:
    listing, table = "", ""
    for number, gpu in enumerate(gpus):
        shown = " || ".join(f"shows {device}" for device in {gpu.uuid, *gpu.devices})
        listing += f"    if {shown}; then\n        echo 'GPU {number}: {gpu.name} (UUID: {gpu.uuid})'\n"
        for index, (uuid, profile) in enumerate((gpu.mig or {}).items()):
            line = f"  MIG {profile}     Device  {index}: (UUID: {uuid})"
            listing += f"        if shows {uuid}; then echo '{line}'; fi\n"
        listing += "    fi\n"
        table += f"    if {shown}; then echo '{gpu.uuid}, {gpu.name}, {gpu.memory_mib}'; fi\n"
    return _SMI % {"listing": listing, "table": table}
