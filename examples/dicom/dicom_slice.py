"""From a DICOM file to the numbers of one slice, and precisely why where there are none.

`measure.py` enters. Of all that a file says about the patient nothing is read: only what the pixels mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_rescale

# The largest slice that any scanner makes, several times over.
MOST_PIXELS = 64 * 1024 * 1024


class SliceError(Exception):
    """A file that cannot be measured; the message says why, and what to do where something can be done."""


@dataclass(frozen=True)
class Slice:
    """One slice. ``pixels`` are Hounsfield units for CT, the scanner's own numbers otherwise (float, 2-D)."""

    pixels: Any
    modality: str
    # Millimetres between the centres of rows, and of columns; None where the file does not say.
    spacing_mm: tuple[float, float] | None
    # Where the slice stands in its series, for the order of the report only.
    number: int
    # MONOCHROME1, as on many radiographs: the lower the number, the brighter.
    inverted: bool = False

    @property
    def unit(self) -> str:
        """What a pixel's number means."""
        return "HU" if self.modality == "CT" else "arbitrary"


def open_slice(path: Path) -> Slice:
    """Read one file; raises ``SliceError``."""
    try:
        dataset = dcmread(path)
    except InvalidDicomError:
        raise SliceError("is not a DICOM file (DICM is missing at byte 128)") from None
    except (OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise SliceError(f"cannot be read as DICOM: {_words(error)}") from error
    _check_kind(dataset)
    _check_encoding(dataset)
    try:
        # Modality LUT: PS3.3 C.11.1, value = slope * stored + intercept.
        pixels = np.asarray(apply_rescale(dataset.pixel_array, dataset), dtype=np.float64)
    # The decoders raise what they like.
    except Exception as error:
        raise SliceError(
            f"has pixel data that cannot be decoded: {_words(error)}{_advice(dataset)}"
        ) from error
    return Slice(
        pixels=pixels,
        modality=str(dataset.get("Modality", "") or "unknown"),
        spacing_mm=_spacing(dataset),
        number=_number(dataset),
        inverted=dataset.get("PhotometricInterpretation", "") == "MONOCHROME1",
    )


def _check_kind(dataset: Dataset) -> None:
    """Refuse what is DICOM but no single grey slice."""
    if "PixelData" not in dataset:
        kind = dataset.get("SOPClassUID")
        name = kind.name if kind is not None and kind.name else "an object of an unknown kind"
        raise SliceError(f"holds no picture, it is {name}; send image slices")
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        raise SliceError(f"holds {frames} frames; send each slice as a file of its own")
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise SliceError("is a colour picture; this model measures grey slices such as CT and MR")
    rows, columns = int(dataset.get("Rows", 0) or 0), int(dataset.get("Columns", 0) or 0)
    if not 0 < rows * columns <= MOST_PIXELS:
        raise SliceError(f"says that it has {rows} rows and {columns} columns, which cannot be")


def _check_encoding(dataset: Dataset) -> None:
    """Refuse what is packed in a way that nothing here unpacks."""
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None:
        raise SliceError("does not say how its pixels are packed (no Transfer Syntax UID)")
    if not syntax.is_compressed:
        return
    try:
        usable = get_decoder(syntax).is_available
    except NotImplementedError:
        usable = False
    if not usable:
        raise SliceError(f"is compressed as {syntax.name}, which this model cannot decode{_advice(dataset)}")


def _advice(dataset: Dataset) -> str:
    """What to do about a compressed file; nothing for one that is not."""
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        return ""
    return "; convert it to Explicit VR Little Endian (for instance with gdcmconv --raw)"


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Pixel Spacing (0028,0030). Imager Pixel Spacing is that of a detector, not of the patient: not used."""
    try:
        rows, columns = (float(value) for value in dataset.PixelSpacing)
    except (AttributeError, TypeError, ValueError):
        return None
    return (rows, columns) if 0 < rows < 1000 and 0 < columns < 1000 else None


def _number(dataset: Dataset) -> int:
    try:
        return int(dataset.InstanceNumber)
    except (AttributeError, TypeError, ValueError):
        return 0


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
