"""Which digit does each picture show? Writes predictions.csv and a contact sheet.

The container's program: reads the pictures of INPUT, the weights of MODEL, writes to OUTPUT. A bad picture is
named in problems.csv and does not spoil the others; a task without a single good picture fails.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from contact_sheet import SURE, Tile, draw
from picture import PictureError, features, open_picture, turned

INPUT = Path(os.environ.get("INPUT", "/input"))
OUTPUT = Path(os.environ.get("OUTPUT", "/output"))
MODEL = Path(os.environ.get("MODEL", "/model"))
# People slant their digits: the mean over turned copies errs on a third fewer of the held-out ones.
TURNS = range(-12, 13, 3)
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Network:
    """A perceptron with one hidden layer, as train.py saved it."""

    hidden_weights: Any  # 64 x hidden
    hidden_bias: Any
    output_weights: Any  # hidden x 10
    output_bias: Any

    def probabilities(self, numbers: Any) -> Any:
        """The probability of each of the ten digits: one ReLU layer, then softmax."""
        hidden = np.maximum(numbers @ self.hidden_weights + self.hidden_bias, 0.0)
        scores = hidden @ self.output_weights + self.output_bias
        powers = np.exp(scores - scores.max())
        return powers / powers.sum()


def classify(network: Network, picture: Any) -> Any:
    """The probability of each digit, as the mean over turned copies of the picture."""
    copies = [turned(picture, degrees) for degrees in TURNS]
    return np.mean([network.probabilities(features(copy)) for copy in copies], axis=0)


def load_network(folder: Path) -> Network:
    """Read the weights."""
    with np.load(folder / "weights.npz") as saved:
        return Network(**{name: saved[name] for name in saved.files})


def report(fraction: float, message: str) -> None:
    """Tell the people who wait how far we are."""
    if "PROGRESS" in os.environ:
        line = json.dumps({"fraction": round(fraction, 3), "message": message})
        Path(os.environ["PROGRESS"]).write_text(line + "\n")


def main() -> int:
    """Classify every picture of the task."""
    pictures = sorted(path for path in INPUT.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not pictures:
        print(
            "error: the task holds no picture; put PNG files of single digits into the zip", file=sys.stderr
        )
        return 1
    network = load_network(MODEL)
    print(f"{len(pictures)} pictures; weights {model_line(MODEL)}", flush=True)
    tiles: list[Tile] = []
    problems: list[tuple[str, str]] = []
    for number, path in enumerate(pictures, start=1):
        name = path.relative_to(INPUT).as_posix()
        try:
            grey = open_picture(path)
            chances = classify(network, grey)
        except PictureError as error:
            problems.append((name, str(error)))
            print(f"{name}: left out, {error}", flush=True)
        else:
            digit = int(chances.argmax())
            tiles.append(Tile(name, grey, digit, float(chances[digit])))
            if chances[digit] < SURE:
                print(f"{name}: {digit}, but only {chances[digit]:.0%} sure", flush=True)
        report(number / len(pictures), f"picture {number} of {len(pictures)}")
    if problems:
        write_rows("problems.csv", ("file", "problem"), problems)
    if not tiles:
        print(f"error: none of the {len(pictures)} pictures could be read as a digit", file=sys.stderr)
        return 1
    rows = [(tile.name, tile.digit, f"{tile.confidence:.4f}") for tile in tiles]
    write_rows("predictions.csv", ("file", "digit", "confidence"), rows)
    draw(tiles).save(OUTPUT / "contact_sheet.png")
    print(f"{len(tiles)} predictions, {len(problems)} problems", flush=True)
    return 0


def model_line(folder: Path) -> str:
    """The held-out accuracy that the weights came with, for the log."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return f"with a held-out accuracy of {metrics['held_out_accuracy']:.1%}"


def write_rows(name: str, header: tuple[str, ...], rows: list[Any]) -> None:
    """Write a CSV file into OUTPUT."""
    with (OUTPUT / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
