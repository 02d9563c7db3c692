"""The smallest honest model: a linear regression that reads CSV files and writes predictions.

Replace `load_model` and `predict` with your own; keep the shape. The container finds its files where the
environment says: INPUT (the task's files, read-only), MODEL (what model.zip held, read-only), OUTPUT (empty,
the only place where results belong). Exit code 0 means that OUTPUT now holds the result.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

INPUT = Path(os.environ.get("INPUT", "/input"))
OUTPUT = Path(os.environ.get("OUTPUT", "/output"))
MODEL = Path(os.environ.get("MODEL", "/model"))


def report(fraction: float, message: str) -> None:
    """Tell the people who wait how far we are; does nothing where nobody listens (plain docker)."""
    if "PROGRESS" in os.environ:
        line = json.dumps({"fraction": fraction, "message": message})
        Path(os.environ["PROGRESS"]).write_text(line + "\n")
    print(f"{fraction:4.0%} {message}", flush=True)  # What is printed appears in the task's log at once.


def load_model() -> tuple[float, dict[str, float]]:
    """Read the weights: an intercept, and one coefficient per column."""
    weights = json.loads((MODEL / "weights.json").read_text())
    return weights["intercept"], weights["coefficients"]


def predict(intercept: float, coefficients: dict[str, float], row: Mapping[str, str]) -> float:
    """The prediction for one row of a CSV file."""
    return intercept + sum(factor * float(row[column]) for column, factor in coefficients.items())


def main() -> int:
    """Predict every row of every CSV file of the task."""
    files = sorted(INPUT.rglob("*.csv"))
    if not files:
        print("error: the task holds no .csv file; put at least one into the zip", file=sys.stderr)
        return 1
    intercept, coefficients = load_model()
    for done, file in enumerate(files):
        name = file.relative_to(INPUT)
        report(done / len(files), f"{name}, file {done + 1} of {len(files)}")
        target = OUTPUT / name  # A file keeps its place, so that equal names in two folders do not collide.
        target.parent.mkdir(parents=True, exist_ok=True)
        with file.open(newline="") as source, target.open("w", newline="") as result:
            rows = csv.DictReader(source)
            missing = coefficients.keys() - set(rows.fieldnames or [])
            if missing:
                print(f"error: {name} has no column {', '.join(sorted(missing))}", file=sys.stderr)
                return 1
            writer = csv.writer(result)
            writer.writerow(["row", "prediction"])
            for number, row in enumerate(rows, start=1):
                writer.writerow([number, round(predict(intercept, coefficients, row), 3)])
    report(1.0, f"{len(files)} files done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
