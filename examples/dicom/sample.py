"""Runs while the image is built: puts slices that pydicom itself carries where `make images` takes them from.

They are test pictures that their makers published without a patient; no download is needed.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pydicom.data import get_testdata_file

# Names inside pydicom, and what they are called here.
SAMPLES = {"CT_small.dcm": "ct.dcm", "MR_small.dcm": "mr.dcm"}


def main(target: Path) -> None:
    """Copy them to ``target/samples``."""
    folder = target / "samples"
    folder.mkdir(parents=True)
    for name, called in SAMPLES.items():
        found = get_testdata_file(name, download=False)
        if not isinstance(found, str):
            raise SystemExit(f"error: this pydicom carries no {name}")
        shutil.copyfile(found, folder / called)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
