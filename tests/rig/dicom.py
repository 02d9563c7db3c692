"""DICOM files made on the spot, and the image of the DICOM example."""

from __future__ import annotations

import array
import io
import os
from pathlib import Path
from typing import Any

from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from setup.engine import engine
from setup.host import machine
from setup.images import base_image as base
from setup.images import example_images
from setup.places import Places

# What must be found nowhere in a result.
PATIENT = "Mustermann^Erika"
SIDE = 64
# In the middle a square of tissue with one of bone in it; far off a smaller piece, like a table.
BODY_SIDE, BONE_SIDE = 32, 8
BODY_HU, BONE_HU, AIR_HU = 40, 700, -1000


def ct_slice(**changes: Any) -> bytes:
    """A CT slice of which all areas are known; ``changes`` replace elements, None removes one."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    elements: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "PatientName": PATIENT,
        "PatientID": "4711-0815",
        "PatientBirthDate": "19640812",
        "Modality": "CT",
        "InstanceNumber": 1,
        "Rows": SIDE,
        "Columns": SIDE,
        "PixelSpacing": [0.5, 2.0],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "RescaleSlope": 2,
        "RescaleIntercept": -1024,
        "PixelData": _pixels(),
    }
    for name, value in {**elements, **changes}.items():
        if name == "TransferSyntaxUID":
            meta.TransferSyntaxUID = value
        elif value is not None:
            setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _pixels() -> bytes:
    values = array.array("h", [_stored(AIR_HU)] * SIDE * SIDE)
    middle = SIDE // 2
    for hounsfield, side in ((BODY_HU, BODY_SIDE), (BONE_HU, BONE_SIDE)):
        for row in range(middle - side // 2, middle + side // 2):
            for column in range(middle - side // 2, middle + side // 2):
                values[row * SIDE + column] = _stored(hounsfield)
    for column in range(SIDE):
        values[(SIDE - 2) * SIDE + column] = _stored(BONE_HU)
    return values.tobytes()


def _stored(hounsfield: int) -> int:
    return (hounsfield + 1024) // 2


def build_example(state: Path) -> Path:
    """Build the example's image on the engine; the zip of its sample slices."""
    places = Places(checkout=Path(__file__).resolve().parents[2], state=state)
    places.make()
    client = engine.connect(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    try:
        base.ensure(client, places, machine.look(), os.environ)
        return example_images.ensure_dicom(client, places, os.environ)
    finally:
        client.close()
