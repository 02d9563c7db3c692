"""What `make model-test` is asked to try: read from the variables that make passes on, and checked.

`model_test.py` enters. Nothing here speaks to an engine.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from inference_server_client.quantities import parse_duration, parse_size

from archives.errors import ArchiveError
from archives.inspection import inspect_zip
from archives.limits import OutputLimits, ZipLimits
from archives.packing import pack_directory
from contracts.messages import Limits
from contracts.names import is_image_reference
from private_api.http.shapes import DEFAULT_LIMITS
from setup.console import SetupError

USAGE = """\
make model-test DIR=path [SAMPLE=…] [CONTENT=…] [TAG=image] [GPU=1] [MEMORY=8g] [TIME=10m] [BASE=image]

  DIR      the folder with the model's Dockerfile; its image is built
  TAG      without DIR: an image that is on this machine; with DIR: what to call the one that is built
  SAMPLE   an input: a zip, a folder (its contents), or a file; else DIR/sample.zip, DIR/sample*,
           DIR/example*/input or DIR/examples
  CONTENT  the static content for /model: a zip or a folder; else DIR/example/model if that is there
  GPU=1    with the machine's first GPU
  MEMORY, TIME   other limits than the server's defaults
  BASE     the image that the Dockerfile's ARG BASE takes; else inferenceserver/python:3"""

_BASE_ARGUMENT = re.compile(r"^\s*ARG\s+BASE\b", re.MULTILINE | re.IGNORECASE)
# Where authors keep a sample, the most deliberate place first.
_SAMPLE_PLACES = ("sample.zip", "sample", "samples", "sample*", "example/input", "example*/input", "examples")
_ANY_TREE = OutputLimits(max_bytes=2**50, max_files=1_000_000)
# As the server's door: what it would refuse is better heard here.
_DOOR = ZipLimits()


@dataclass(frozen=True)
class Request:
    """A checked request. One of ``folder`` and ``tag`` at least is given; paths exist."""

    folder: Path | None
    tag: str
    sample: Path
    content: Path | None
    use_gpu: bool
    limits: Limits
    # What was asked for beyond the defaults, as options of `infer models add`.
    options: tuple[str, ...]
    base: str | None

    @property
    def name(self) -> str:
        """A model id that suggests itself."""
        place = self.folder.name if self.folder is not None else self.tag.rpartition("/")[2].partition(":")[0]
        return slug(place)

    @property
    def declares_base(self) -> bool:
        """Whether its Dockerfile takes the base image as an argument."""
        if self.folder is None:
            return False
        return _BASE_ARGUMENT.search((self.folder / "Dockerfile").read_text(errors="replace")) is not None


def read_request(environment: Mapping[str, str]) -> Request:
    """The request in DIR, TAG, SAMPLE and so on; raises ``SetupError`` that says what to write instead."""
    given = {name: environment.get(name, "").strip() for name in ("DIR", "TAG", "SAMPLE", "CONTENT", "BASE")}
    if not given["DIR"] and not given["TAG"]:
        raise SetupError(f"Say which model to test.\n{USAGE}")
    folder = _folder(given["DIR"]) if given["DIR"] else None
    tag = given["TAG"] or (f"model-test/{slug(folder.name)}:latest" if folder else "")
    if not is_image_reference(tag):
        raise SetupError(f"TAG: {tag!r} is not the name of an image, such as my-model:1.")
    limits, options = _limits(environment)
    return Request(
        folder=folder,
        tag=tag,
        sample=_existing("SAMPLE", given["SAMPLE"]) if given["SAMPLE"] else _find_sample(folder),
        content=_existing("CONTENT", given["CONTENT"]) if given["CONTENT"] else _find_content(folder),
        use_gpu=environment.get("GPU", "").strip() not in {"", "0", "no"},
        limits=limits,
        options=options,
        base=given["BASE"] or None,
    )


def slug(text: str) -> str:
    """``text`` as a part of an image's name: lower-case letters and digits, with dashes between."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "model"


def as_zip(source: Path, target: Path) -> Path:
    """``source`` itself where it is a zip, otherwise ``target`` with a folder's contents or the one file.

    Raises ``SetupError`` for a zip that the server would not take.
    """
    if source.is_dir():
        with target.open("wb") as file:
            for piece in pack_directory(source, _ANY_TREE, allow_empty=True):
                file.write(piece)
        found = target
    elif zipfile.is_zipfile(source):
        found = source
    else:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(source, source.name)
        found = target
    try:
        with found.open("rb") as file:
            inspect_zip(file, _DOOR)
    except ArchiveError as error:
        raise SetupError(f"The server would not take {source}: {error}") from error
    return found


def _folder(text: str) -> Path:
    folder = Path(text).expanduser().resolve()
    if not folder.is_dir():
        raise SetupError(f"DIR: {folder} is not a folder.")
    if not (folder / "Dockerfile").is_file():
        raise SetupError(
            f"DIR: there is no Dockerfile in {folder}. model_template/ holds one to begin with; an image "
            "that is built already is tested with TAG=image instead."
        )
    return folder


def _existing(variable: str, text: str) -> Path:
    path = Path(text).expanduser().resolve()
    if not path.exists():
        raise SetupError(f"{variable}: {path} does not exist.")
    return path


def _find_sample(folder: Path | None) -> Path:
    for place in _SAMPLE_PLACES if folder is not None else ():
        for found in sorted(folder.glob(place)) if folder is not None else ():
            if found.suffix == ".zip" or (found.is_dir() and any(found.iterdir())):
                return found
    where = f"in {folder}" if folder is not None else "beside an image"
    raise SetupError(
        f"There is no sample {where} to run the model on: name one with SAMPLE=, a zip or a folder with "
        "input as people would send it (or put it into a folder named sample)."
    )


def _find_content(folder: Path | None) -> Path | None:
    found = folder / "example" / "model" if folder is not None else None
    return found if found is not None and found.is_dir() else None


def _limits(environment: Mapping[str, str]) -> tuple[Limits, tuple[str, ...]]:
    limits, options = Limits(**DEFAULT_LIMITS), []
    memory, time = (environment.get(name, "").strip() for name in ("MEMORY", "TIME"))
    try:
        if memory:
            limits = replace(limits, memory_bytes=parse_size(memory))
            options.append(f"--memory {memory}")
        if time:
            limits = replace(limits, time_seconds=parse_duration(time))
            options.append(f"--time {time}")
    except ValueError as error:
        raise SetupError(f"{'TIME' if options or not memory else 'MEMORY'}: {error}") from error
    return limits, tuple(options)
