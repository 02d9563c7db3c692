"""What a trial leaves behind when the engine will not let go of a part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.outside.errors import RefusedError
from consumer.trial.run import _remove_all
from tests.unit.consumer.attempt_bench import Bench
from tests.unit.consumer.fake_engine import FakeEngine


class Forgetful(FakeEngine):
    """Keeps every input volume, as an engine does that was restarted with its containers alive."""

    def remove_volume(self, name: str) -> None:
        if name.endswith("-input"):
            raise RefusedError(500, f"remove {name}: volume has active mounts")
        super().remove_volume(name)


def test_what_the_engine_keeps_of_a_trial_keeps_nothing_else(tmp_path: Path) -> None:
    # Given a trial's workspace and network, of which the engine keeps one volume
    bench = Bench(tmp_path, kind=Forgetful)
    bench.station.network.ensure()
    # When all is removed, then the author hears of it
    with pytest.raises(RefusedError):
        _remove_all(bench.station)
    # And nothing but that stays: no later trial has this installation, so none would remove it
    assert list(bench.engine.volumes) == [bench.workspace.volume("input")]
    assert bench.engine.networks == {}
