"""The DICOM example in the sandbox: what it measures, and what it says of files that it cannot measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import JPEGLSLossless

from consumer.outside.inspecting_engine import InspectingEngine
from consumer.trial.run import Plan, Run, try_model
from contracts.messages import Limits, MountPoints, SandboxProfile
from contracts.reasons import ReasonCode
from private_api.http.shapes import DEFAULT_LIMITS
from setup.images.example_images import DICOM_TAG
from tests.rig.dicom import BODY_HU, BODY_SIDE, BONE_HU, BONE_SIDE, PATIENT, build_example, ct_slice
from tests.rig.zips import zip_of


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip of the sample slices; the image is there."""
    return build_example(tmp_path_factory.mktemp("dicom") / "state")


def run(directory: Path, files: dict[str, bytes]) -> Run:
    engine = InspectingEngine()
    image = engine.describe_image(DICOM_TAG)
    assert image is not None
    sample = directory / "input.zip"
    sample.write_bytes(zip_of(files))
    mounts = MountPoints(input="/input", output="/output", model="/model")
    plan = Plan(tag=DICOM_TAG, image=image, limits=Limits(**DEFAULT_LIMITS), mounts=mounts, input_zip=sample)
    target = directory / "run"
    target.mkdir()
    return try_model(engine, plan, SandboxProfile.STRICT, target, lambda _piece: None)


def report(directory: Path) -> Any:
    return json.loads((directory / "run" / "output" / "measurements.json").read_text())


def carried(name: str) -> bytes:
    """A file that pydicom carries."""
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found).read_bytes()


def test_a_slice_of_known_areas_is_measured_and_the_patient_is_nowhere(example: Path, tmp_path: Path) -> None:
    seen = run(tmp_path, {"slice": ct_slice()})
    assert seen.succeeded, seen.log
    assert sorted(seen.files) == ["mask.png", "measurements.json", "overlay.png"]
    [entry] = report(tmp_path)["slices"]
    # A pixel is 0.5 mm by 2 mm; the piece at the border is not part of the body.
    body, bone = BODY_SIDE**2, BONE_SIDE**2
    assert entry["structures"]["body"]["area_mm2"] == body
    assert entry["structures"]["body"]["mean"] == pytest.approx(
        (BODY_HU * (body - bone) + BONE_HU * bone) / body, abs=0.01
    )
    assert entry["structures"]["bone"] == {
        "pixels": bone, "area_mm2": bone, "mean": BONE_HU, "standard_deviation": 0.0,
    }  # fmt: skip
    assert (entry["modality"], entry["unit"], entry["pixel_spacing_mm"]) == ("CT", "HU", [0.5, 2.0])
    kept = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    for part in (*PATIENT.split("^"), "4711-0815", "19640812"):
        assert part.encode() not in kept
    assert seen.progress.valid == 1


def test_several_files_good_and_bad(example: Path, tmp_path: Path) -> None:
    # Given slices in the wrong order, one without its spacing, and everything that people send by mistake
    good = {
        "b/last.dcm": ct_slice(InstanceNumber=2),
        "first.dcm": ct_slice(InstanceNumber=1, PixelSpacing=None),
        "mr.dcm": carried("MR_small.dcm"),
        "rle.dcm": carried("MR_small_RLE.dcm"),
        "jpeg2000.dcm": carried("693_J2KI.dcm"),
        "empty-slice.dcm": ct_slice(InstanceNumber=3, PixelData=b"\0" * 2 * 64 * 64),
    }
    bad = {
        "report.txt": (b"no slice", "is not a DICOM file"),
        "nothing": (b"", "is not a DICOM file"),
        "frames.dcm": (ct_slice(NumberOfFrames=2), "holds 2 frames"),
        "colour.dcm": (carried("SC_rgb_rle.dcm"), "is a colour picture"),
        "text.dcm": (carried("reportsi.dcm"), "holds no picture, it is Basic Text SR"),
        "cut.dcm": (carried("MR_truncated.dcm"), "less than expected"),
        "jpeg-ls.dcm": (carried("MR_small_jpeg_ls_lossless.dcm"), JPEGLSLossless.name),
        "lossy.dcm": (carried("JPEG-lossy.dcm"), "convert it to Explicit VR Little Endian"),
        "sizes.dcm": (ct_slice(Rows=0), "0 rows"),
    }
    # When they are sent together
    seen = run(tmp_path, good | {name: body for name, (body, _) in bad.items()})
    # Then the good ones are measured in the order of their series, and each bad one is named with its reason
    assert seen.succeeded, seen.log
    result = report(tmp_path)
    entries = {entry["file"]: entry for entry in result["slices"]}
    assert set(entries) == set(good)
    ours = [entry["file"] for entry in result["slices"] if entry["file"] in {"first.dcm", "b/last.dcm"}]
    assert ours == ["first.dcm", "b/last.dcm"]
    unspaced = entries["first.dcm"]
    assert unspaced["structures"]["body"]["area_mm2"] is None
    assert unspaced["structures"]["body"]["pixels"] == BODY_SIDE**2
    assert "no Pixel Spacing" in unspaced["notes"][0]
    assert entries["mr.dcm"]["unit"] == "arbitrary"
    assert set(entries["mr.dcm"]["structures"]) == {"body"}
    # The same picture in another packing is the same picture.
    assert entries["rle.dcm"]["structures"] == entries["mr.dcm"]["structures"]
    assert entries["empty-slice.dcm"]["notes"] == ["nothing stands out from the background"]
    problems = {entry["file"]: entry["problem"] for entry in result["problems"]}
    assert set(problems) == set(bad)
    for name, (_, words) in bad.items():
        assert words in problems[name], name
    for entry in entries.values():
        assert {f"{entry['folder']}/mask.png", f"{entry['folder']}/overlay.png"} <= set(seen.files)
    assert seen.progress.valid == len(good) + len(bad)


def test_a_task_without_a_slice_fails_and_says_why(example: Path, tmp_path: Path) -> None:
    seen = run(tmp_path, {"notes.txt": b"x"})
    assert seen.code is ReasonCode.EXIT_NONZERO
    assert "notes.txt is not a DICOM file" in seen.sentence


def test_the_samples_are_slices_that_it_measures(example: Path, tmp_path: Path) -> None:
    with ZipFile(example) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert sorted(files) == ["ct.dcm", "mr.dcm"]
    assert run(tmp_path, files).succeeded
    assert report(tmp_path)["problems"] == []
