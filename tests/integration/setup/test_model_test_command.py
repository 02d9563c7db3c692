"""`make model-test` as its user meets it: the command as a process, on the real engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.images import engine, image_of

CHECKOUT = Path(__file__).resolve().parents[3]


def model_test(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"DIR", "TAG", "SAMPLE"}}
    environment |= {"STATE_DIRECTORY": str(tmp_path / "state"), **variables}
    return subprocess.run(
        [sys.executable, "-m", "setup", "model-test"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    folder = tmp_path / "some input"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    return folder


def test_a_folder_is_built_tried_and_its_registration_printed(tmp_path: Path, sample: Path) -> None:
    # Given a folder whose program is executable and lies beside a declared volume
    folder = tmp_path / "My Model"
    (folder / "sample").mkdir(parents=True)
    (folder / "sample" / "x.txt").write_text("x")
    (folder / "example" / "model").mkdir(parents=True)
    (folder / "example" / "model" / "weights").write_text("w")
    program = folder / "run.sh"
    program.write_text("#!/bin/sh\necho working\ncp /input/* /model/* /output/\n")
    program.chmod(0o755)
    (folder / "Dockerfile").write_text(
        'ARG BASE\nFROM $BASE\nCOPY run.sh /run.sh\nVOLUME /data\nENTRYPOINT ["/run.sh"]\n'
    )
    tag = f"inferenceserver-test-models/model-test-{os.getpid()}:1"
    try:
        # When it is tested
        done = model_test(tmp_path, DIR=str(folder), TAG=tag, BASE=image_of("echo"), MEMORY="128m")
    finally:
        engine().images.remove(tag, force=True)
    # Then it works, and the line that registers it says what was tried
    assert done.returncode == 0, done.stdout + done.stderr
    content = folder / "example" / "model"
    assert f"infer models add my-model {tag} --content '{content}' --memory 128m\n" in done.stdout
    assert "  | working" in done.stdout
    assert "VOLUME /data" in done.stdout
    assert "writable root" not in done.stdout, "what the engine itself changes is no finding"
    output = tmp_path / "state" / "model-test" / "my-model" / "strict" / "output"
    assert sorted(path.name for path in output.iterdir()) == ["weights", "x.txt"]


def test_an_image_that_works_in_one_profile_only_is_registered_for_that(tmp_path: Path, sample: Path) -> None:
    done = model_test(tmp_path, TAG=image_of("writes-root"), SAMPLE=str(sample))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗ It writes outside /output and /tmp" in done.stdout
    assert "--profile compatible\n" in done.stdout


def test_an_image_that_works_in_neither_profile_fails_the_command(tmp_path: Path, sample: Path) -> None:
    done = model_test(tmp_path, TAG=image_of("exits-3"), SAMPLE=str(sample))
    assert done.returncode == 1
    assert "exit code 3: the weights do not fit" in done.stdout
    assert done.stderr == "error: It works in neither profile; mend what is marked ✗ and run this again.\n"


def test_a_build_that_fails_shows_why_and_the_way_around(tmp_path: Path, sample: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    failing = 'RUN ["/bin/sh", "-c", "echo no; exit 9"]'
    (folder / "Dockerfile").write_text(f"FROM {image_of('echo')}\n{failing}\n")
    done = model_test(tmp_path, DIR=str(folder), SAMPLE=str(sample))
    assert done.returncode == 1
    assert "returned a non-zero code: 9" in done.stderr
    assert "docker build -t model-test/broken:latest" in done.stderr


def test_an_image_that_is_not_there(tmp_path: Path, sample: Path) -> None:
    done = model_test(tmp_path, TAG="nobody/made:this", SAMPLE=str(sample))
    assert done.returncode == 1
    assert "nobody/made:this is not on this machine" in done.stderr
    assert "Traceback" not in done.stderr
