"""The DICOM example through the whole server: a slice in, a mask, an overlay and measurements out."""

from __future__ import annotations

import json
from pathlib import Path

from setup.images.example_images import DICOM_TAG
from tests.rig.api import Api
from tests.rig.dicom import BODY_SIDE, build_example, ct_slice
from tests.rig.zips import files_of


def test_a_slice_becomes_a_mask_an_overlay_and_measurements(admin: Api, user: Api, tmp_path: Path) -> None:
    # Given the example, registered as its README says
    build_example(tmp_path / "state")
    fields = {"human_readable_id": "dicom", "container_tag": DICOM_TAG}
    assert admin.post("/v1/models", json=fields).status_code == 201
    # When a user sends a slice
    task = user.submit("dicom", {"slice.dcm": ct_slice()})
    ended = user.ended(task)
    # Then the pictures and the numbers come back, with the model's own word on how far it was
    assert ended["state"] == "succeeded", ended
    assert ended["progress"] == {"fraction": 1.0, "message": "file 1 of 1"}
    answer = user.get(f"/v1/tasks/{task['id']}/output")
    files = files_of(answer.content)
    assert set(files) == {"mask.png", "overlay.png", "measurements.json"}
    assert files["mask.png"].startswith(b"\x89PNG")
    [measured] = json.loads(files["measurements.json"])["slices"]
    assert measured["structures"]["body"]["area_mm2"] == BODY_SIDE**2
