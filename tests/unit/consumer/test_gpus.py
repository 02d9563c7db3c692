"""Which GPUs a machine has: what nvidia-smi prints, and the sibling container that is asked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from consumer.node import gpus
from consumer.node.gpus import TABLE, Probe, chosen_gpus, find_gpus, parse_gpus
from consumer.outside.engine import LocalImage
from consumer.outside.errors import EngineAwayError
from consumer.outside.labels import ROLE, Owner
from contracts.nodes import GpuFacts
from tests.unit.consumer.fake_engine import FakeContainer, FakeEngine

MIB = 1024**2
A = "GPU-aaaaaaaa-1111-2222-3333-444444444444"
B = "GPU-bbbbbbbb-1111-2222-3333-444444444444"
C, D = "MIG-cccccccc-1111-2222-3333-444444444444", "MIG-dddddddd-1111-2222-3333-444444444444"
LISTING = f"""GPU 0: NVIDIA H100 80GB HBM3 (UUID: {A})
GPU 1: NVIDIA H100 80GB HBM3 (UUID: {B})
  MIG 1g.10gb     Device  0: (UUID: {C})
  MIG 3g.40gb     Device  1: (UUID: {D})
"""
QUERY = f"{A}, NVIDIA H100 80GB HBM3, 81559\n{B}, NVIDIA H100 80GB HBM3, 81559\n"
OWNER = Owner(installation="inst", node="node", slot="check")


def test_a_gpu_cut_into_mig_devices_counts_as_those() -> None:
    assert parse_gpus(LISTING, QUERY) == (
        GpuFacts(uuid=A, name="NVIDIA H100 80GB HBM3", memory_bytes=81559 * MIB),
        GpuFacts(uuid=C, name="NVIDIA H100 80GB HBM3 MIG 1g.10gb", memory_bytes=10 * 10**9),
        GpuFacts(uuid=D, name="NVIDIA H100 80GB HBM3 MIG 3g.40gb", memory_bytes=40 * 10**9),
    )


@pytest.mark.parametrize("table", ["", f"{A}, NVIDIA GB10, [N/A]\n", "a line, of, something\nelse"])
def test_memory_that_nobody_tells_is_none(table: str) -> None:
    [found] = parse_gpus(f"GPU 0: NVIDIA GB10 (UUID: {A})", table)
    assert (found.name, found.memory_bytes) == ("NVIDIA GB10", 0)


@pytest.mark.parametrize("listing", ["", "No devices found.\n", "NVIDIA-SMI has failed because …\n"])
def test_a_listing_of_nothing_is_no_gpu(listing: str) -> None:
    assert parse_gpus(listing, QUERY) == ()


def test_a_machine_without_gpus_is_asked_once() -> None:
    asked: list[Sequence[str]] = []
    assert find_gpus(asked.append) == ()
    assert asked == [("-L",)]


def test_named_gpus_are_taken_at_their_word(caplog: pytest.LogCaptureFixture) -> None:
    found = parse_gpus(LISTING, QUERY)
    named = chosen_gpus((D, "GPU-somewhere-else"), found)
    assert named == (found[2], GpuFacts(uuid="GPU-somewhere-else", name="", memory_bytes=0))
    assert "GPUS names GPU-somewhere-else" in caplog.text
    assert chosen_gpus(None, found) == found
    assert chosen_gpus((), found) == ()


def smi(container: FakeContainer) -> int:
    container.log += (QUERY if TABLE[0] in container.body["Cmd"] else LISTING).encode()
    return 0


def engine_with(image: str = "probe:1", **options: object) -> FakeEngine:
    return FakeEngine(images={image: LocalImage(image_id="sha256:1")}, **options)  # type: ignore[arg-type]


def test_a_sibling_asks_for_all_gpus_and_is_gone_afterwards() -> None:
    bodies = []

    def program(container: FakeContainer) -> int:
        bodies.append(container.body)
        return smi(container)

    engine = engine_with(program=program)
    assert find_gpus(Probe(engine, OWNER, "probe:1")) == parse_gpus(LISTING, QUERY)
    # Then it had all GPUs, and nothing else
    for body in bodies:
        config = body["HostConfig"]
        assert config["DeviceRequests"] == [{"Driver": "", "Count": -1, "Capabilities": [["gpu", "utility"]]}]
        assert config["NetworkMode"] == "none"
        assert config["ReadonlyRootfs"]
        assert config["CapDrop"] == ["ALL"]
        assert body["Labels"][ROLE] == "probe"
    assert len(bodies) == 2
    assert engine.containers == {}


def test_an_engine_without_a_driver_has_no_gpus(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    engine = engine_with()
    engine.refuse_start = 'could not select device driver "" with capabilities: [[gpu utility]]'
    assert find_gpus(Probe(engine, OWNER, "probe:1")) == ()
    [line] = caplog.records
    assert (line.levelname, line.getMessage()) == ("INFO", "no GPUs: the engine has no driver for any")
    assert engine.containers == {}


def test_a_failing_program_is_no_gpu_and_said(caplog: pytest.LogCaptureFixture) -> None:
    def program(container: FakeContainer) -> int:
        container.log += b"NVIDIA-SMI has failed\nbecause it could not talk to the driver\n"
        return 9

    engine = engine_with(program=program)
    assert find_gpus(Probe(engine, OWNER, "probe:1")) == ()
    [line] = caplog.messages
    assert "nvidia-smi ended with 9: NVIDIA-SMI has failed" in line
    assert engine.containers == {}


def test_a_program_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpus, "_ASK_SECONDS", 0.05)
    engine = engine_with(program=lambda container: int(container.killed.wait(20)))
    assert find_gpus(Probe(engine, OWNER, "probe:1")) == ()
    assert "did not end in time" in caplog.text
    assert engine.containers == {}


def test_a_probe_image_that_is_missing_is_pulled(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine(registry={"probe:1": LocalImage(image_id="sha256:1")}, program=smi)
    assert find_gpus(Probe(engine, OWNER, "probe:1")) == parse_gpus(LISTING, QUERY)
    assert find_gpus(Probe(engine, OWNER, "elsewhere:1")) == ()
    assert "manifest unknown" in caplog.text


def test_an_engine_that_is_away_is_no_machine_without_gpus() -> None:
    engine = engine_with()
    engine.away = True
    with pytest.raises(EngineAwayError):
        find_gpus(Probe(engine, OWNER, "probe:1"))
