"""The slice as people know it, with the outlines of what was found drawn over it."""

from __future__ import annotations

from typing import Any

import numpy as np
from dicom_slice import Slice
from PIL import Image
from scipy import ndimage
from segmentation import BODY, BONE

# What radiologists call a soft-tissue window: centre 40, width 400.
_CT_WINDOW = (-160.0, 240.0)
_OUTLINES = ((BODY, (0, 200, 255)), (BONE, (255, 176, 0)))
# Small slices are enlarged so that the outlines can be seen.
_SHORTEST_SIDE = 512


def draw(piece: Slice, mask: Any) -> Image.Image:
    """An RGB picture."""
    grey = _windowed(piece)
    factor = max(1, -(-_SHORTEST_SIDE // min(grey.shape)))
    large = np.kron(grey, np.ones((factor, factor), dtype=np.uint8))
    picture = np.stack([large] * 3, axis=-1)
    large_mask = np.kron(mask, np.ones((factor, factor), dtype=np.uint8))
    for label, colour in _OUTLINES:
        inside = large_mask >= label
        picture[inside & ~ndimage.binary_erosion(inside)] = colour
    return Image.fromarray(picture)


def _windowed(piece: Slice) -> Any:
    if piece.modality == "CT":
        low, high = _CT_WINDOW
    else:
        low, high = np.percentile(piece.pixels, (1, 99))
    scaled = (piece.pixels - low) / max(float(high - low), 1e-9) * 255
    grey = np.clip(scaled, 0, 255).astype(np.uint8)
    return 255 - grey if piece.inverted else grey
