"""What the kernel counts."""

from __future__ import annotations

from pathlib import Path

from consumer.outside.kernel import memory_kills


def test_the_kernels_count_is_read(tmp_path: Path) -> None:
    counts = tmp_path / "vmstat"
    counts.write_text("nr_free_pages 12\noom_kill_other 9\noom_kill 7\n")
    assert memory_kills(counts) == 7


def test_a_kernel_that_does_not_count_has_killed_nobody(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("nr_free_pages 12\n")
    assert memory_kills(tmp_path / "vmstat") == memory_kills(tmp_path / "none") == 0
