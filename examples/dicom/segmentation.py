"""Which pixels are body, and which of those are bone: thresholds and the largest connected piece.

Nothing is learned. For CT the thresholds are fixed, because Hounsfield units mean the same on every scanner.
For anything else the one threshold is Otsu's (IEEE Trans. Syst. Man Cybern. 9(1), 1979), and bone is not told
apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from dicom_slice import Slice
from scipy import ndimage

# Air and lung lie far below, fat (-100) and all other tissue above.
BODY_HU = -300.0
# Cancellous bone begins about here; contrast agent does too, and counts as bone.
BONE_HU = 200.0
# The values of mask.png, far apart so that people see them.
OUTSIDE, BODY, BONE = 0, 128, 255
_BINS = 256


@dataclass(frozen=True)
class Segmentation:
    """``mask`` holds OUTSIDE, BODY or BONE per pixel (uint8); ``method`` says how it came about."""

    mask: Any
    method: str


def segment(piece: Slice) -> Segmentation:
    """Segment one slice; a slice in which nothing stands out has an empty mask."""
    if piece.modality == "CT":
        body = _largest(piece.pixels >= BODY_HU)
        bone = body & (piece.pixels >= BONE_HU)
        method = f"largest connected piece of HU >= {BODY_HU:g}; bone in it: HU >= {BONE_HU:g}"
    else:
        brightness = -piece.pixels if piece.inverted else piece.pixels
        threshold = otsu(brightness)
        body = _largest(brightness > threshold)
        bone = np.zeros_like(body)
        method = f"largest connected piece above Otsu's threshold, {threshold:.6g}"
    mask = np.full(body.shape, OUTSIDE, dtype=np.uint8)
    mask[body] = BODY
    mask[bone] = BONE
    return Segmentation(mask=mask, method=method)


def otsu(pixels: Any) -> float:
    """The threshold that parts the pixels into two classes with the largest variance between them."""
    if pixels.max() == pixels.min():
        return float(pixels.max())
    counts, edges = np.histogram(pixels, bins=_BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    sums = np.cumsum(counts * centres)
    # The last bin would leave nothing above it.
    mean_below = sums[:-1] / np.maximum(below[:-1], 1)
    mean_above = (sums[-1] - sums[:-1]) / np.maximum(above[1:], 1)
    between = below[:-1] * above[1:] * (mean_below - mean_above) ** 2
    return float(edges[int(between.argmax()) + 1])


def _largest(found: Any) -> Any:
    """The largest piece whose pixels touch, corners included: a table or a tube is another piece."""
    labels, count = ndimage.label(found, structure=np.ones((3, 3)))
    if count == 0:
        return found
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()
