"""How large is the body in each DICOM slice, and how dense? Writes a mask, an overlay and measurements.

The container's program: reads every file of INPUT, writes to OUTPUT. A file that cannot be measured is named
under "problems" and does not spoil the others; a task without a single slice fails. Nothing that a file says
about the patient is copied anywhere.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from dicom_slice import Slice, SliceError, open_slice
from overlay import draw
from PIL import Image
from segmentation import BODY, BONE, OUTSIDE, segment

INPUT = Path(os.environ.get("INPUT", "/input"))
OUTPUT = Path(os.environ.get("OUTPUT", "/output"))


def report(fraction: float, message: str) -> None:
    """Tell the people who wait how far we are."""
    if "PROGRESS" in os.environ:
        line = json.dumps({"fraction": round(fraction, 3), "message": message})
        with Path(os.environ["PROGRESS"]).open("a") as file:
            file.write(line + "\n")


def measure(piece: Slice, mask: Any) -> dict[str, Any]:
    """What the report says of each structure; areas are null where the file tells no Pixel Spacing."""
    pixel_mm2 = None if piece.spacing_mm is None else piece.spacing_mm[0] * piece.spacing_mm[1]
    structures = {"body": mask >= BODY}
    if piece.modality == "CT":
        structures["bone"] = mask == BONE
    return {name: _structure(piece.pixels[inside], pixel_mm2) for name, inside in structures.items()}


def _structure(values: Any, pixel_mm2: float | None) -> dict[str, Any]:
    count = int(values.size)
    return {
        "pixels": count,
        "area_mm2": None if pixel_mm2 is None else round(count * pixel_mm2, 2),
        "mean": round(float(values.mean()), 2) if count else None,
        "standard_deviation": round(float(values.std()), 2) if count else None,
    }


def process(path: Path, folder: str) -> tuple[int, dict[str, Any]]:
    """Measure one file into ``folder`` of OUTPUT; its place in the series, and its part of the report."""
    piece = open_slice(path)
    found = segment(piece)
    target = OUTPUT / folder
    target.mkdir(parents=True, exist_ok=True)
    Image.fromarray(found.mask).save(target / "mask.png")
    draw(piece, found.mask).save(target / "overlay.png")
    rows, columns = (int(side) for side in piece.pixels.shape)
    notes = [] if piece.spacing_mm else ["no Pixel Spacing in the file: areas are known in pixels only"]
    if not np.any(found.mask):
        notes.append("nothing stands out from the background")
    return piece.number, {
        "file": path.relative_to(INPUT).as_posix(),
        "folder": folder,
        "modality": piece.modality,
        "rows": rows,
        "columns": columns,
        "pixel_spacing_mm": piece.spacing_mm,
        "unit": piece.unit,
        "method": found.method,
        "structures": measure(piece, found.mask),
        "notes": notes,
    }


def main() -> int:
    """Measure every file of the task."""
    paths = sorted(path for path in INPUT.rglob("*") if path.is_file())
    if not paths:
        print("error: the task is empty; put DICOM files into the zip", file=sys.stderr)
        return 1
    slices: list[tuple[int, dict[str, Any]]] = []
    problems: list[dict[str, str]] = []
    for done, path in enumerate(paths, start=1):
        name = path.relative_to(INPUT).as_posix()
        try:
            # A number keeps equal names in two folders apart.
            slices.append(process(path, f"{done:04}-{path.stem}" if len(paths) > 1 else "."))
        except SliceError as error:
            problems.append({"file": name, "problem": str(error)})
            # On the same stream as the last word below, which then stays the last line of the log.
            print(f"{name}: left out, it {error}", file=sys.stderr, flush=True)
        report(done / len(paths), f"file {done} of {len(paths)}")
    if not slices:
        first = f"{problems[0]['file']} {problems[0]['problem']}"
        print(f"error: none of the {len(paths)} files could be measured; {first}", file=sys.stderr)
        return 1
    result = {
        "labels": {"outside": OUTSIDE, "body": BODY, "bone": BONE},
        "slices": [entry for _, entry in sorted(slices, key=lambda one: (one[0], one[1]["file"]))],
        "problems": problems,
        "not_for": "diagnosis or treatment: thresholds and the largest connected piece, nothing more",
    }
    (OUTPUT / "measurements.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"{len(slices)} slices measured, {len(problems)} files left out", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
