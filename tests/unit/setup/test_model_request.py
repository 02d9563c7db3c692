"""What `make model-test` understands of what it is asked, and what it answers where it does not."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from setup.console import SetupError
from setup.model_test.model_request import as_zip, read_request, slug


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Lung CT"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\n")
    return folder


def sample_in(folder: Path, name: str) -> Path:
    place = folder / name
    place.mkdir(parents=True)
    (place / "a.txt").write_text("a")
    return place


def test_a_folder_suggests_name_tag_sample_and_content(folder: Path) -> None:
    sample, content = sample_in(folder, "example/input"), sample_in(folder, "example/model")
    request = read_request({"DIR": str(folder)})
    assert (request.name, request.tag) == ("lung-ct", "model-test/lung-ct:latest")
    assert (request.sample, request.content) == (sample, content)
    assert request.limits.memory_bytes == 4 * 1024**3
    assert request.options == ()
    assert not request.declares_base


def test_the_most_deliberate_sample_wins(folder: Path) -> None:
    sample_in(folder, "examples")
    named = sample_in(folder, "sample-2024")
    assert read_request({"DIR": str(folder)}).sample == named
    packed = folder / "sample.zip"
    packed.write_bytes(b"")
    assert read_request({"DIR": str(folder)}).sample == packed


def test_everything_can_be_said(folder: Path) -> None:
    place = sample_in(folder, "elsewhere")
    (folder / "Dockerfile").write_text("# x\n  arg BASE=python:3\nFROM $BASE\n")
    request = read_request(
        {"DIR": str(folder), "TAG": "lung:2", "SAMPLE": str(place), "CONTENT": str(place), "GPU": "1",
         "MEMORY": "8g", "TIME": "10m", "BASE": "python:3.13-slim"}
    )  # fmt: skip
    assert request.tag == "lung:2"
    assert request.sample == request.content == place
    assert request.use_gpu
    assert (request.limits.memory_bytes, request.limits.time_seconds) == (8 * 1024**3, 600.0)
    assert request.options == ("--memory 8g", "--time 10m")
    assert request.declares_base
    assert request.base == "python:3.13-slim"


def test_an_image_without_a_folder_takes_its_name_from_its_tag(folder: Path) -> None:
    place = sample_in(folder, "elsewhere")
    request = read_request({"TAG": "registry.example.org:5000/group/Lung_CT:3".lower(), "SAMPLE": str(place)})
    assert request.name == "lung-ct"
    assert request.content is None


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "make model-test DIR="),
        ({"DIR": "/no/such"}, "DIR: /no/such is not a folder"),
        ({"TAG": "Not An Image"}, "TAG: 'Not An Image'"),
        ({"TAG": "model:1"}, "SAMPLE="),
        ({"TAG": "model:1", "SAMPLE": "/no/such"}, "SAMPLE: /no/such does not exist"),
        ({"TAG": "model:1", "MEMORY": "much"}, "MEMORY: 'much' is not a size"),
        ({"TAG": "model:1", "MEMORY": "1g", "TIME": "long"}, "TIME: 'long' is not a duration"),
    ],
)
def test_what_is_wrong_is_said(variables: dict[str, str], words: str) -> None:
    with pytest.raises(SetupError) as caught:
        read_request(variables)
    assert words in str(caught.value)


def test_a_folder_without_a_dockerfile_and_one_without_a_sample(folder: Path) -> None:
    with pytest.raises(SetupError, match=r"There is no sample in .*SAMPLE="):
        read_request({"DIR": str(folder)})
    (folder / "Dockerfile").unlink()
    with pytest.raises(SetupError, match=r"no Dockerfile in .*TAG=image"):
        read_request({"DIR": str(folder)})


def test_a_zip_goes_as_it_is_and_all_else_is_packed(folder: Path, tmp_path: Path) -> None:
    place, target = sample_in(folder, "elsewhere/deep").parent, tmp_path / "made.zip"
    with zipfile.ZipFile(as_zip(place, target)) as archive:
        assert archive.namelist() == ["deep/", "deep/a.txt"]
    assert as_zip(target, tmp_path / "other.zip") == target
    with zipfile.ZipFile(as_zip(place / "deep" / "a.txt", target)) as archive:
        assert archive.namelist() == ["a.txt"]


def test_a_zip_that_the_server_would_refuse_is_refused_here(tmp_path: Path) -> None:
    bad = tmp_path / "bad.zip"
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("../out", "x")
    with pytest.raises(SetupError, match="The server would not take"):
        as_zip(bad, tmp_path / "target.zip")


def test_slugs() -> None:
    assert [slug("Lung CT"), slug("a__b--C"), slug("…")] == ["lung-ct", "a-b-c", "model"]
