"""`make bundle`: gather the images and files of a release, and write them as one archive.

Images are saved by the engine and pass through once, a layer at a time: each is hashed, searched for
packages, and compressed into the archive unless an earlier bundle brought it.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import docker

from setup import choices
from setup.bundle import lists, manifest, saved, sbom, software, toolbox
from setup.bundle.archive import MANIFEST, Archive
from setup.bundle.manifest import Image, Layer, Manifest
from setup.bundle.software import Traces
from setup.console import SetupError, detail, say, step
from setup.engine import engine
from setup.host import machine
from setup.images import base_image, example_images, service_images
from setup.places import Places
from setup.stack import stack_images, stack_settings

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def make(places: Places, environment: Mapping[str, str]) -> None:
    """Write the archive of this checkout's release into the directory OUT."""
    base = read_base(Path(environment["SINCE"]).expanduser()) if environment.get("SINCE") else None
    example = choices.read(environment, "EXAMPLE")
    target = Path(environment.get("OUT") or places.checkout / "dist").expanduser().resolve()
    places.make()
    target.mkdir(parents=True, exist_ok=True)
    this_machine = machine.look()
    host = engine.ensure(places, this_machine, environment)
    client = engine.connect(host, saved.SILENCE_SECONDS)
    try:
        settings = _have_images(client, places, this_machine, environment)
        setup_image = toolbox.ensure(client, places, environment)
        tags = [base_image.TAG, setup_image, *_images_in(settings), *environment.get("ALSO", "").split()]
        files = lists.documents(places.checkout)
        if example:
            made = example_images.ensure(client, places, environment)
            tags.append(made.container_tag)
            files |= {
                "example/model.zip": made.model_zip.read_bytes(),
                "example/task.zip": _zipped(made.samples),
            }
        release = Manifest(
            version=service_images.read_version(places.checkout),
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            architecture=str(client.images.get(base_image.TAG).attrs["Architecture"]),
            source=settings["IMAGES"],
            setup_image=setup_image,
            images=tuple(_look(client, tag) for tag in dict.fromkeys(tags)),
            settings=settings,
            since=base.release if base else "",
        )
        written = _write(client, target, release, base, files)
    finally:
        client.close()
    say(f"\n{written} is whole: release {release.release}, {_megabytes(written.stat().st_size)}.")
    say("On a machine with nothing but an engine:\n")
    say(f"  tar -xf {written.name} && {lists.folder(release)}/install")


def _have_images(
    client: docker.DockerClient, places: Places, this_machine: machine.Machine, environment: Mapping[str, str]
) -> dict[str, str]:
    """Build or pull the stack's images; the variables that name them."""
    source = stack_images.choose_source(client, "", environment, {})
    named = {
        name: value for name, value in environment.items() if name.endswith("_IMAGE") or name == "STORE_USER"
    }
    chosen = stack_settings.choose(
        named, {}, installation="bundle", state=str(places.state), docker_socket="/var/run/docker.sock",
        source=source, version=service_images.read_version(places.checkout),
    )  # fmt: skip
    stack_images.ensure(client, places, this_machine, environment, chosen)
    kept = {name: value for name, value in chosen.values.items() if name.endswith("_IMAGE")}
    return {"IMAGES": source.value, "STORE_USER": chosen.values["STORE_USER"], **kept}


def _images_in(settings: Mapping[str, str]) -> list[str]:
    return [value for name, value in sorted(settings.items()) if name.endswith("_IMAGE")]


def _look(client: docker.DockerClient, tag: str) -> Image:
    if ":" not in tag.rpartition("/")[2]:
        tag = f"{tag}:latest"
    try:
        attributes = client.images.get(tag).attrs
    except docker.errors.ImageNotFound as error:
        raise SetupError(f"The image {tag} is not on this engine; build or pull it first.") from error
    return Image(tag, attributes["Id"], attributes["Created"], tuple(attributes["RootFS"]["Layers"]))


def _write(
    client: docker.DockerClient,
    folder: Path,
    release: Manifest,
    base: Manifest | None,
    files: Mapping[str, bytes],
) -> Path:
    since = base.version if base else ""
    seconds = int(datetime.fromisoformat(release.created).timestamp())
    archive = Archive(folder / manifest.archive_name(release.version, since), lists.folder(release), seconds)
    wanted = manifest.wanted_layers(release.images, base)
    traces: dict[str, Traces] = {}
    brought: dict[str, Layer] = {}
    try:
        # What a target runs comes first, so that a truncated bundle can say that it is one.
        for name, content in lists.scripts().items():
            archive.add(name, content, 0o755)
        with (
            step(f"Writing {archive.target} ({len(release.images)} images)"),
            tempfile.TemporaryDirectory(prefix=".bundle-", dir=folder) as work,
        ):

            def take(digest: str, spool: Path) -> None:
                traces[digest] = software.read_layer(spool)
                if digest in wanted:
                    brought[digest] = archive.add_layer(lists.layer_file(digest), spool)

            ids = list(dict.fromkeys(image.id for image in release.images))
            found = saved.read(client, ids, Path(work) / "layer", take)
        earlier = base.layers if base else {}
        known = {digest: layer for digest, layer in {**earlier, **brought}.items() if digest in traces}
        release = replace(release, layers=known, brought=tuple(sorted(brought)))
        _add_images(archive, release, base, found)
        contents = {
            image.tag: software.packages(software.overlay(traces[layer] for layer in image.layers))
            for image in release.images
        }
        archive.add(sbom.FILE_NAME, lists.as_json(sbom.document(release, contents)))
        for name, content in {**files, **lists.facts(release, base)}.items():
            archive.add(name, content)
        archive.finish(manifest.render(replace(release, files=dict(archive.files))))
    finally:
        archive.close()
    _say_what_is_trusted(release, traces)
    with archive.target.open("rb") as file:
        sums = hashlib.file_digest(file, "sha256")
    archive.target.with_name(f"{archive.target.name}.sha256").write_text(
        f"{sums.hexdigest()}  {archive.target.name}\n"
    )
    detail(
        f"{sum(map(len, contents.values()))} packages in its bill of materials, SHA-256 {sums.hexdigest()}"
    )
    return archive.target


def _add_images(
    archive: Archive, release: Manifest, base: Manifest | None, found: Iterable[saved.SavedImage]
) -> None:
    # Engines with another image store have ids that are not those of configurations, so layers decide.
    configurations = {(one.layers, one.id): one.configuration for one in found}
    by_layers = {one.layers: one.configuration for one in found}
    listed = []
    for image in manifest.changed(release.images, base):
        content = configurations.get((image.layers, image.id)) or by_layers[image.layers]
        name = f"configurations/{hashlib.sha256(content).hexdigest()}.json"
        if f"images/{name}" not in archive.files:
            archive.add(f"images/{name}", content)
        layers = [lists.layer_file(layer).removeprefix("images/") for layer in image.layers]
        listed.append({"Config": name, "RepoTags": [image.tag], "Layers": layers})
    archive.add("images/manifest.json", lists.as_json(listed))


def _say_what_is_trusted(release: Manifest, traces: Mapping[str, Traces]) -> None:
    layers = next(image.layers for image in release.images if image.tag == base_image.TAG)
    versions = [
        traces[layer].files[software.TRUSTED] for layer in layers if software.TRUSTED in traces[layer].files
    ]
    if added := added_certificates(versions):
        detail(
            f"its images trust {added} CA certificates of this machine that their system does not bring; "
            "docs/closed-network.md says how to build without them"
        )


def added_certificates(versions: list[bytes]) -> int:
    """How many certificates the last of a file's versions has that the first has not."""
    if not versions:
        return 0
    first, last = (set(_CERTIFICATE.findall(text)) for text in (versions[0], versions[-1]))
    return len(last - first)


def read_base(path: Path) -> Manifest:
    """The manifest of an earlier bundle: from its archive, its directory, or by itself."""
    if path.is_dir():
        path /= MANIFEST
    if not path.is_file():
        raise SetupError(f"SINCE names {path}, which is no file; name an earlier bundle or its {MANIFEST}.")
    if path.suffix == ".json":
        return manifest.parse(path.read_bytes(), str(path))
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                if entry.name.count("/") == 1 and entry.name.endswith(f"/{MANIFEST}"):
                    content = archive.extractfile(entry)
                    return manifest.parse(content.read() if content else b"", f"{path} ({MANIFEST})")
    except (tarfile.TarError, OSError) as error:
        raise SetupError(f"SINCE names {path}, which cannot be read: {error}") from error
    raise SetupError(f"SINCE names {path}, which holds no {MANIFEST}; it is no bundle, or not a whole one.")


def _zipped(folder: Path) -> bytes:
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(folder.iterdir()):
                packed.write(path, path.name)
        file.seek(0)
        return file.read()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
