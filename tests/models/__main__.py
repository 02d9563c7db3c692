"""``python -m tests.models``: lists the tiny models; ``build`` makes all images, ``remove`` removes them."""

from __future__ import annotations

import sys

from tests.models.catalogue import MODELS
from tests.models.images import image_of, remove_all


def main(arguments: list[str]) -> None:
    """Do what the one argument says."""
    match arguments:
        case ["build"]:
            for name in MODELS:
                print(image_of(name))
        case ["remove"]:
            print("\n".join(remove_all()))
        case _:
            for name, model in MODELS.items():
                print(f"{name:24}{model.does}")


main(sys.argv[1:])
