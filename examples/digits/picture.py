"""From a picture of one handwritten digit to the 64 numbers that the classifier reads, and nothing else.

Training and prediction both come through here, so that they cannot drift apart. The numbers mean what they
mean in the data set that the weights were trained on (E. Alpaydin, C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI, 1998): the digit fills a square of 32 x 32 dots; each number is the ink in a
cell of 4 x 4 dots.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CELLS = 8
DOTS = 32
# Ink fainter than this share of the darkest is taken for paper when the digit's frame is sought.
FAINTEST_INK = 0.25
# Of 255 grey values; what differs less from the paper is noise, not a digit.
LEAST_CONTRAST = 30


class PictureError(ValueError):
    """This file is not a picture of a digit; the message says why."""


def open_picture(path: Path) -> Image.Image:
    """Read a picture as grey values; transparent parts count as paper."""
    try:
        # Pillow only warns of a picture that is suspiciously large once unpacked; here it is refused.
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                picture = opened.convert("RGBA")
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise PictureError("it cannot be read as a picture") from error
    on_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("L")
    on_black = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture).convert("L")
    # White ink on nothing shows only on black.
    return on_white if _contrast(on_white) >= _contrast(on_black) else on_black


def turned(picture: Image.Image, degrees: float) -> Image.Image:
    """The picture turned about its middle; corners that appear are paper."""
    paper = round(_paper(np.asarray(picture)))
    return picture.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=paper)


def features(picture: Image.Image) -> Any:
    """64 numbers in 0..1 from a grey picture of any size, dark on light or light on dark."""
    ink = _ink(np.asarray(picture, dtype=np.float32))
    rows, columns = np.where(ink > FAINTEST_INK)
    frame = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = frame.shape
    scale = DOTS / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    digit = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)
    square = Image.new("F", (DOTS, DOTS), 0.0)
    square.paste(digit, ((DOTS - size[0]) // 2, (DOTS - size[1]) // 2))
    cells = np.asarray(square).reshape(CELLS, DOTS // CELLS, CELLS, DOTS // CELLS).mean(axis=(1, 3))
    return cells.reshape(-1) / max(float(cells.max()), 1e-6)


def _ink(grey: Any) -> Any:
    """How much each dot differs from the paper, 0..1."""
    ink = np.abs(grey - _paper(grey))
    strongest = float(ink.max())
    if strongest < LEAST_CONTRAST:
        raise PictureError("it shows nothing that stands out from its background")
    return ink / strongest


def _paper(grey: Any) -> float:
    """The grey value of the paper: what most of the picture's edge shows."""
    return float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))


def _contrast(picture: Image.Image) -> int:
    low, high = picture.getextrema()
    return int(high - low)
