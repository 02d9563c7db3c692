"""Whether we live in a container, in which one, and where our directory then lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from consumer.node.residence import HostPaths, find_on_host, ids_of_kernel, own_image, place_on_host
from consumer.outside.engine import LocalImage, Mount
from consumer.outside.errors import SettingsError
from tests.unit.consumer.fake_engine import FakeEngine

ID, OTHER = "a1" * 32, "b2" * 32
MOUNTINFO = f"""\
600 500 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/X
610 600 254:0 /var/lib/docker/volumes/data/_data /var/lib/inferenceserver rw - ext4 /dev/vda rw
611 600 254:0 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda rw
612 600 254:0 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda rw
613 600 254:0 /srv/{OTHER}/hosts /srv/hosts rw - ext4 /dev/vda rw
"""
VOLUME = Mount(kind="volume", source="/engine/volumes/data/_data", destination="/data")


@pytest.mark.parametrize(
    ("mountinfo", "cgroup", "ids"),
    [
        pytest.param(MOUNTINFO, "0::/", [ID], id="version 2, a namespace of its own"),
        pytest.param("", f"9:memory:/docker/{ID}\n5:cpu:/docker/{ID}", [ID], id="version 1"),
        pytest.param("", f"0::/system.slice/docker-{ID}.scope", [ID], id="systemd"),
        pytest.param("", f"4:cpu:/docker/{OTHER}/docker/{ID}", [ID], id="an engine in a container"),
        pytest.param(MOUNTINFO, f"4:cpu:/docker/{OTHER}", [ID, OTHER], id="the surest first"),
        pytest.param("", "4:memory:/user.slice/0123456789abcdef", [], id="a machine"),
        pytest.param("", "", [], id="nothing is told"),
    ],
)
def test_the_kernel_tells_which_container_it_may_be(mountinfo: str, cgroup: str, ids: list[str]) -> None:
    assert ids_of_kernel(mountinfo, cgroup) == ids


@pytest.mark.parametrize(
    ("mounts", "directory", "place"),
    [
        ([VOLUME], "/data", "/engine/volumes/data/_data"),
        ([VOLUME], "/data/a/b", "/engine/volumes/data/_data/a/b"),
        ([VOLUME], "/database", None),
        ([VOLUME, Mount(kind="bind", source="/srv/x", destination="/data/a")], "/data/a/b", "/srv/x/b"),
        ([Mount(kind="bind", source="/srv/x", destination="/data/a"), VOLUME], "/data/a/b", "/srv/x/b"),
        ([Mount(kind="bind", source="/srv", destination="/")], "/data", "/srv/data"),
        ([VOLUME, Mount(kind="tmpfs", source="", destination="/data/a")], "/data/a/b", None),
        ([], "/data", None),
    ],
)
def test_the_innermost_mount_says_where_it_lies(
    mounts: list[Mount], directory: str, place: str | None
) -> None:
    found = place_on_host(mounts, Path(directory))
    assert found == (None if place is None else PurePosixPath(place))


def test_only_paths_of_ours_have_a_name_there() -> None:
    places = HostPaths(ours=Path("/data"), on_host=PurePosixPath("/engine/_data"))
    assert places.device(Path("/data/slots/x")) == "/engine/_data/slots/x"
    with pytest.raises(ValueError, match="/database"):
        places.device(Path("/database/x"))


class Contained(FakeEngine):
    """An engine that runs one container with these mounts, which shows the files of ``shown``."""

    def __init__(self, mounts: tuple[Mount, ...], shown: Path) -> None:
        super().__init__(images={"x": LocalImage(image_id="sha256:1")})
        made = self.create_container({"Image": "x", "HostConfig": {}})
        container = self.containers.pop(made)
        container.facts = replace(container.facts, container_id=ID, state="running", mounts=mounts)
        self.containers[ID] = container
        self._shown = shown

    def read_file(self, container_id: str, path: str) -> bytes:
        return (self._shown / Path(path).name).read_bytes()


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """What the kernel tells a process of container ``ID``."""
    process = tmp_path / "proc"
    process.mkdir()
    (process / "mountinfo").write_text(MOUNTINFO)
    (process / "cgroup").write_text("0::/")
    return process


def test_a_container_that_shows_our_file_is_ours(tmp_path: Path, process: Path) -> None:
    # Given a container that has our directory from a volume
    mount = replace(VOLUME, destination=str(tmp_path))
    # Then it lies where the volume does, and no marker is left behind
    engine = Contained((mount,), shown=tmp_path)
    assert find_on_host(engine, tmp_path, process) == PurePosixPath(mount.source)
    assert list(tmp_path.iterdir()) == [process]


def test_a_container_knows_of_which_image_it_is(tmp_path: Path, process: Path) -> None:
    engine = Contained((), shown=tmp_path)
    assert own_image(engine, tmp_path, process) == "x"
    # And a process of no container of this engine is of none
    assert own_image(FakeEngine(), tmp_path, process) is None


def test_a_container_without_a_mount_is_told_what_to_mount(tmp_path: Path, process: Path) -> None:
    with pytest.raises(SettingsError, match=f"mount a named volume .* at {tmp_path}"):
        find_on_host(Contained((), shown=tmp_path), tmp_path, process)


def test_another_engines_container_is_none_of_this_ones(tmp_path: Path, process: Path) -> None:
    # Given an engine that knows nothing of the container that we are in
    assert find_on_host(FakeEngine(), tmp_path, process) == PurePosixPath(tmp_path)


def test_a_machine_has_its_own_paths(tmp_path: Path) -> None:
    # Given a process of no container, and an engine that is not even there
    engine = FakeEngine()
    (tmp_path / "mountinfo").write_text("27 1 254:0 / / rw - ext4 /dev/vda rw\n")
    (tmp_path / "cgroup").write_text("0::/user.slice\n")
    assert find_on_host(engine, tmp_path, tmp_path) == PurePosixPath(tmp_path)
