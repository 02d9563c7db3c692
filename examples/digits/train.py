"""Train the classifier while the image is built: `python train.py DIRECTORY` writes model.zip and samples/.

Runs only in the Dockerfile's first stage. A fifth of the data is held out before anything else happens; the
accuracy in metrics.json is that of the finished program's own arithmetic on pictures of those digits.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from picture import features
from PIL import Image, ImageOps
from predict import Network, classify
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

SEED = 7
VARIANTS = 12
HIDDEN = 128


def render(
    digit: Any, size: int = 96, turn: float = 0.0, border: int = 12, *, dark_ink: bool = True
) -> Image.Image:
    """An 8 x 8 digit of the data set as a picture such as people draw."""
    small = Image.fromarray(np.uint8(digit * 255 / 16))
    large = small.resize((size, size), Image.Resampling.BICUBIC)
    picture = ImageOps.expand(large, border).rotate(turn, Image.Resampling.BICUBIC)
    return ImageOps.invert(picture) if dark_ink else picture


def augmented(digits: Any, labels: Any) -> tuple[Any, Any]:
    """Each digit as it is and slightly turned, through the same preparation as at prediction."""
    chance = np.random.default_rng(SEED)
    numbers, answers = [], []
    for digit, label in zip(digits, labels, strict=True):
        for variant in range(VARIANTS):
            turn = 0.0 if variant == 0 else chance.uniform(-14, 14)
            numbers.append(features(render(digit, int(chance.integers(32, 128)), turn)))
            answers.append(label)
    return np.array(numbers), np.array(answers)


def train(digits: Any, labels: Any) -> Network:
    """Fit the perceptron and keep its four arrays."""
    numbers, answers = augmented(digits, labels)
    fitted = MLPClassifier((HIDDEN,), alpha=0.1, max_iter=300, early_stopping=True, random_state=SEED)
    fitted.fit(numbers, answers)
    arrays = [array.astype(np.float32) for array in (*fitted.coefs_, *fitted.intercepts_)]
    return Network(
        hidden_weights=arrays[0], output_weights=arrays[1], hidden_bias=arrays[2], output_bias=arrays[3]
    )


def accuracy(network: Network, digits: Any, labels: Any) -> float:
    """The share of digits that are read rightly, half of them drawn light on dark."""
    right = [
        classify(network, render(digit, dark_ink=bool(i % 2))).argmax() == label
        for i, (digit, label) in enumerate(zip(digits, labels, strict=True))
    ]
    return float(np.mean(right))


def model_zip(network: Network, metrics: dict[str, Any]) -> bytes:
    """Weights, metrics and model card; the same bytes for the same content."""
    weights = io.BytesIO()
    np.savez(weights, **vars(network))
    card = Path("MODEL_CARD.md").read_text().format(**metrics)
    files = {
        "weights.npz": weights.getvalue(),
        "metrics.json": json.dumps(metrics, indent=2).encode(),
        "MODEL_CARD.md": card.encode(),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # Without a date, which would change the hash.
    return packed.getvalue()


def save_samples(folder: Path, digits: Any, labels: Any) -> None:
    """The held-out digits as PNG files of several sizes, dark on light and light on dark."""
    folder.mkdir()
    for i, (digit, label) in enumerate(zip(digits, labels, strict=True)):
        picture = render(digit, 64 + 24 * (i % 4), border=8 + 4 * (i % 3), dark_ink=bool(i % 3))
        picture.save(folder / f"held-out-{i:03}-is-{label}.png")


def main(target: Path) -> None:
    """Train, measure, save."""
    data = load_digits()
    digits, held_out, labels, held_out_labels = train_test_split(
        data.images, data.target, test_size=0.2, random_state=SEED, stratify=data.target
    )
    network = train(digits, labels)
    metrics = {
        "held_out_accuracy": round(accuracy(network, held_out, held_out_labels), 4),
        "held_out_digits": len(held_out),
        "training_digits": len(digits),
        "hidden_units": HIDDEN,
    }
    print(json.dumps(metrics))
    target.mkdir(parents=True)
    (target / "model.zip").write_bytes(model_zip(network, metrics))
    save_samples(target / "samples", held_out, held_out_labels)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
