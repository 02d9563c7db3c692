"""One picture that shows every input with what was read in it. Draws; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

TILE, MARGIN, CAPTION = 112, 12, 44
COLUMNS = 6
# A sheet of thousands of tiles helps nobody; the table has them all.
MOST_TILES = 120
# Below this the reader should look for himself.
SURE = 0.8
INK, FAINT, GOOD, DOUBTFUL, PAPER = "#1b1f24", "#6a737d", "#1a7f37", "#bc4c00", "white"


@dataclass(frozen=True)
class Tile:
    """One picture, and what was read in it."""

    name: str
    picture: Image.Image
    digit: int
    confidence: float


def draw(tiles: list[Tile]) -> Image.Image:
    """The sheet; the first 120 pictures, in their order."""
    shown = tiles[:MOST_TILES]
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    width, height = TILE + MARGIN, TILE + CAPTION + MARGIN
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), PAPER)
    for place, tile in enumerate(shown):
        _draw_tile(sheet, tile, MARGIN + place % columns * width, MARGIN + place // columns * height)
    return sheet


def _draw_tile(sheet: Image.Image, tile: Tile, left: int, top: int) -> None:
    pen = ImageDraw.Draw(sheet)
    small = tile.picture.copy()
    small.thumbnail((TILE, TILE))
    sheet.paste(small, (left + (TILE - small.width) // 2, top + (TILE - small.height) // 2))
    pen.rectangle((left, top, left + TILE - 1, top + TILE - 1), outline="#d0d7de")
    colour = GOOD if tile.confidence >= SURE else DOUBTFUL
    pen.text((left, top + TILE + 2), str(tile.digit), fill=colour, font=ImageFont.load_default(24))
    pen.text(
        (left + 22, top + TILE + 10), f"{tile.confidence:.0%}", fill=INK, font=ImageFont.load_default(14)
    )
    name = tile.name if len(tile.name) <= 22 else f"…{tile.name[-21:]}"
    pen.text((left, top + TILE + 30), name, fill=FAINT, font=ImageFont.load_default(10))
