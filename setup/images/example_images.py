"""Build model_template and the examples; take the digits' weights and all samples out of their builds.

The weights come from the first stage of the example's Dockerfile, which trains; the image that runs is the
last stage and does not hold them.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import docker

from setup.images import base_image, images
from setup.places import Places

TEMPLATE_TAG = "inferenceserver/model-template:1"
DIGITS_TAG = "inferenceserver/digits:1"
TRAINING_TAG = "inferenceserver/digits-training:1"
DICOM_TAG = "inferenceserver/dicom:1"
DICOM_SAMPLES_TAG = "inferenceserver/dicom-samples:1"


@dataclass(frozen=True)
class Example:
    """A model that is ready to be registered, with pictures to try it on."""

    container_tag: str
    image_id: str
    model_zip: Path
    samples: Path


def ensure(engine: docker.DockerClient, places: Places, environment: Mapping[str, str]) -> Example:
    """Build what is missing or has changed."""
    settings = {"BASE": base_image.TAG, **images.forwarded_settings(environment)}
    template = images.read_context(places.checkout / "model_template")
    images.ensure(
        engine,
        images.Recipe(TEMPLATE_TAG, "the model template", template, base_image.TAG, arguments=settings),
        places.logs / "build-model-template.log",
    )
    digits = images.read_context(places.checkout / "examples" / "digits")
    training_id = images.ensure(
        engine,
        images.Recipe(
            TRAINING_TAG,
            "the digits example: training its weights",
            digits,
            base_image.TAG,
            target="train",
            arguments=settings,
        ),
        places.logs / "build-digits-training.log",
    )
    image_id = images.ensure(
        engine,
        images.Recipe(DIGITS_TAG, "the digits example", digits, base_image.TAG, arguments=settings),
        places.logs / "build-digits.log",
    )
    folder = places.state / "digits"
    if not _is_from(folder, training_id):
        _extract(engine, training_id, folder)
    return Example(DIGITS_TAG, image_id, folder / "model.zip", folder / "samples")


def ensure_dicom(engine: docker.DockerClient, places: Places, environment: Mapping[str, str]) -> Path:
    """Build the DICOM example; the zip of its sample slices. The demo does without, to stay quick."""
    settings = {"BASE": base_image.TAG, **images.forwarded_settings(environment)}
    context = images.read_context(places.checkout / "examples" / "dicom")
    title = "the DICOM example"
    recipe = images.Recipe(DICOM_TAG, title, context, base_image.TAG, arguments=settings)
    images.ensure(engine, recipe, places.logs / "build-dicom.log")
    recipe = replace(recipe, tag=DICOM_SAMPLES_TAG, title=f"{title}: its sample slices", target="samples")
    samples_id = images.ensure(engine, recipe, places.logs / "build-dicom-samples.log")
    folder = places.state / "dicom"
    packed = folder / "task.zip"
    if not _is_from(folder, samples_id) or not packed.is_file():
        _extract(engine, samples_id, folder)
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted((folder / "samples").iterdir()):
                archive.write(path, path.name)
    return packed


def _is_from(folder: Path, training_id: str) -> bool:
    stamp = folder / "trained-in"
    return stamp.exists() and stamp.read_text() == training_id


def _extract(engine: docker.DockerClient, training_id: str, folder: Path) -> None:
    container = engine.containers.create(training_id, command=["never-run"])
    try:
        chunks, _ = container.get_archive("/built/.")
        packed = io.BytesIO(b"".join(chunks))
    finally:
        container.remove(force=True, v=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=packed) as archive:
        # Debian 12's own Python has no extraction filters yet; these are plain files of our own image.
        for member in filter(tarfile.TarInfo.isfile, archive):
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            target.write_bytes(content.read() if content else b"")
    # Written last: an extraction that was cut off is done again.
    (folder / "trained-in").write_text(training_id)
