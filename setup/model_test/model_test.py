"""`make model-test`: build a model's image, run it on a sample exactly as the server would, in both profiles,
and say in plain words what is wrong or needed.

`model_request` reads what is asked; `consumer.trial` runs it; this module tells the story.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from docker.errors import DockerException
from inference_server_client.terminal_text import sanitise

from consumer.node.gpus import ask_machine, find_gpus
from consumer.node.station import forced_user
from consumer.outside.errors import ConsumerError
from consumer.outside.inspecting_engine import ImageDetails, InspectingEngine
from consumer.outside.wording import one_line
from consumer.trial.findings import Judgement, judge, size
from consumer.trial.run import Plan, Run, try_model
from contracts.messages import MountPoints, SandboxProfile
from contracts.reasons import ReasonCode
from private_api.http.shapes import DEFAULT_SETTINGS
from setup.console import SetupError, detail, say, step
from setup.engine import engine
from setup.host import machine
from setup.images import base_image, images
from setup.model_test.model_request import Request, as_zip, read_request
from setup.places import Places

SHOWN_LAYERS = 3
SHOWN_FILES = 12
SHOWN_LINES = 100
SHOWN_CHARACTERS = 300


def run(places: Places, environment: Mapping[str, str]) -> None:
    """The whole test; raises ``SetupError`` where the model works in neither profile."""
    request = read_request(environment)
    places.make()
    this_machine = machine.look()
    host = engine.ensure(places, this_machine, environment)
    # What the attempt tells operators in its log, the report below tells the author.
    logging.getLogger("consumer").setLevel(logging.ERROR)
    if request.folder is not None:
        _build(places, this_machine, request, host, environment)
    # The consumer's own way to the engine; both speak to the one that was found.
    os.environ["DOCKER_HOST"] = host
    kept = places.state / "model-test" / request.name
    try:
        inspecting = InspectingEngine(host)
        image = inspecting.describe_image(request.tag)
        if image is None:
            raise SetupError(
                f"The image {request.tag} is not on this machine; build or pull it (docker pull "
                f"{request.tag}), or name its folder with DIR=."
            )
        show_image(request.tag, image)
        with tempfile.TemporaryDirectory(prefix="sample-", dir=places.state) as scratch:
            plan = _plan(request, image, Path(scratch))
            runs = [_try(inspecting, plan, profile, kept) for profile in SandboxProfile]
    except ConsumerError as error:
        raise SetupError(f"The container engine failed: {error}") from error
    by_profile = {one.profile: one for one in runs}
    own_user = forced_user()
    judgement = judge(
        plan, by_profile[SandboxProfile.STRICT], by_profile[SandboxProfile.COMPATIBLE], own_user
    )
    show_judgement(judgement, request)


def _build(
    places: Places, this_machine: machine.Machine, request: Request, host: str, environment: Mapping[str, str]
) -> None:
    assert request.folder is not None  # noqa: S101 - For the type checker: asked before.
    client = engine.connect(host)
    log = places.logs / f"build-model-test-{request.name}.log"
    arguments = images.forwarded_settings(environment)
    try:
        if request.declares_base:
            arguments["BASE"] = request.base or base_image.TAG
            detail(f"ARG BASE is {arguments['BASE']}")
            if request.base is None:
                base_image.ensure(client, places, this_machine, environment)
        with step(f"Building {request.tag} from {request.folder}"):
            images.run_build(
                client,
                request.tag,
                log,
                path=str(request.folder),
                buildargs=arguments,
                network_mode=images.build_network(arguments),
            )
    except SetupError as error:
        raise SetupError(
            f"{error}\nThis builds with the engine's classic builder. If your Dockerfile needs BuildKit "
            f"(RUN --mount, COPY --link, heredocs), build it with `docker build -t {request.tag} "
            f"{shlex.quote(str(request.folder))}` and run `make model-test TAG={request.tag} SAMPLE=…`."
        ) from error
    except (DockerException, OSError) as error:
        raise SetupError(f"{request.folder} cannot be built: {error}") from error
    finally:
        client.close()


def _plan(request: Request, image: ImageDetails, scratch: Path) -> Plan:
    gpus = find_gpus(ask_machine) if request.use_gpu else ()
    if request.use_gpu and not gpus:
        raise SetupError("GPU=1: nvidia-smi finds no GPU on this machine.")
    content = None if request.content is None else as_zip(request.content, scratch / "content.zip")
    if content is not None:
        detail(f"static content {request.content}")
    detail(f"sample {request.sample}")
    mounts = (DEFAULT_SETTINGS[f"{part}_mountpoint"] for part in ("input", "output", "model"))
    return Plan(
        tag=request.tag,
        image=image,
        limits=request.limits,
        mounts=MountPoints(**dict(zip(("input", "output", "model"), mounts, strict=True))),
        input_zip=as_zip(request.sample, scratch / "input.zip"),
        content_zip=content,
        gpu=gpus[0].uuid if gpus else None,
    )


def _try(inspecting: InspectingEngine, plan: Plan, profile: SandboxProfile, kept: Path) -> Run:
    directory = kept / profile.value
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    log = _LiveLog()
    what = "an unprivileged user, a read-only root" if profile is SandboxProfile.STRICT else "its own user"
    say(f"→ Running it as the server would, profile {profile.value} ({what})")
    seen = try_model(inspecting, plan, profile, directory, log.show)
    log.end()
    show_run(seen, plan, directory)
    return seen


class _LiveLog:
    """The model's log on the terminal, line by line, its first lines only."""

    def __init__(self) -> None:
        self._rest = b""
        self._shown = 0

    def show(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        # A line without an end must not be kept for ever.
        self._rest = self._rest[:4096]
        for line in lines:
            self._line(line)

    def end(self) -> None:
        if self._rest:
            self._line(self._rest)

    def _line(self, line: bytes) -> None:
        self._shown += 1
        if self._shown <= SHOWN_LINES:
            detail(f"  | {sanitise(line.decode(errors='replace'))[:SHOWN_CHARACTERS]}")
        elif self._shown == SHOWN_LINES + 1:
            detail("  | … the rest is in its log.txt")


def show_image(tag: str, image: ImageDetails) -> None:
    """How large the image is, and what makes it so."""
    say(f"\nThe image {tag}: {size(image.size_bytes)}, its largest layers:")
    for layer in [layer for layer in image.layers if layer.size_bytes][:SHOWN_LAYERS]:
        detail(f"{size(layer.size_bytes):>11}  {one_line(layer.made_by, 90) or 'the system below it'}")


def show_run(seen: Run, plan: Plan, directory: Path) -> None:
    """How one run ended, what it used and what it wrote."""
    outcome = "succeeded" if seen.succeeded else f"failed ({seen.code})"
    code = "no exit code" if seen.exit_code is None else f"exit code {seen.exit_code}"
    peak = seen.peak_memory_bytes
    allowed = size(plan.limits.memory_bytes)
    if seen.code is ReasonCode.OUT_OF_MEMORY:
        memory = f"more memory than its {allowed}"
    elif peak is None:
        memory = "too short to measure its memory"
    else:
        memory = f"seen using up to {size(peak)} of {allowed} memory"
    detail(f"{outcome}: {code}, {seen.seconds:.1f} s, {memory}")
    if not seen.succeeded:
        detail(one_line(seen.sentence))
    progress = seen.progress
    if progress.valid or progress.invalid:
        detail(f"progress file: lines understood {progress.valid}, not understood {progress.invalid}")
    if seen.files:
        total = size(sum(seen.files.values()))
        detail(f"output in {directory / 'output'} ({_files(len(seen.files))}, {total}):")
        for name, size_bytes in list(seen.files.items())[:SHOWN_FILES]:
            detail(f"  {one_line(name, 100)}  {size(size_bytes)}")
        if len(seen.files) > SHOWN_FILES:
            detail(f"  … and {len(seen.files) - SHOWN_FILES} more")
    detail(f"log in {directory / 'log.txt'}")


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def show_judgement(judgement: Judgement, request: Request) -> None:
    """What was found and how to register the model; raises ``SetupError`` when it works in no profile."""
    say("\nFound:" if judgement.findings else "\nNothing to mend was found.")
    for finding in judgement.findings:
        detail(f"{'✗' if finding.problem else '·'} {finding.text}")
    if judgement.profile is None:
        raise SetupError("It works in neither profile; mend what is marked ✗ and run this again.")
    say(f"\nIt works in the {judgement.profile.value} profile. Register it with:")
    detail(" ".join(registration(judgement, request)))


def registration(judgement: Judgement, request: Request) -> list[str]:
    """The command that registers the model as it was tried."""
    content = [] if request.content is None else [f"--content {shlex.quote(str(request.content))}"]
    compatible = ["--profile compatible"] if judgement.profile is SandboxProfile.COMPATIBLE else []
    gpu = ["--gpu"] if request.use_gpu else []
    return [
        "infer models add", request.name, request.tag, *content, *gpu, *request.options, *compatible
    ]  # fmt: skip
