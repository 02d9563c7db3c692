"""How much a zip from a stranger, or a model's output, may hold.

Plain values with a reason beside each; the services fill them from their settings or from a lease.
"""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1024 * 1024
_GIB = 1024 * _MIB


@dataclass(frozen=True, kw_only=True)
class ZipLimits:
    """What a zip may hold, all checked before a byte is unpacked.

    ``max_ratio`` (unpacked bytes to the zip's own size) counts only above ``ratio_free_bytes``.
    """

    # The slices of a few hundred CT series fit; checking that many takes a fraction of a second and 20 MB.
    max_entries: int = 50_000
    # What a node's disk can be expected to spare for one task.
    max_unpacked_bytes: int = 50 * _GIB
    # Deflate cannot pass 1,032:1, and segmentation masks alone reach several hundred; whole studies with
    # masks among them stay far below this.
    max_ratio: float = 250.0
    # A single large empty mask is no bomb: no node is harmed by this much, whatever it was packed from.
    ratio_free_bytes: int = 512 * _MIB
    # 50,000 entries with 300 bytes each; also what bounds the memory of an inspection.
    max_directory_bytes: int = 16 * _MIB
    # NAME_MAX of every Linux file system in use.
    max_name_bytes: int = 255
    # PATH_MAX is 4,096; a model opens the path below a mount point, which needs room too.
    max_path_bytes: int = 3_840
    # Deeper trees are made by accidents and attacks, and each level costs an open directory while unpacking.
    max_depth: int = 128


@dataclass(frozen=True, kw_only=True)
class OutputLimits:
    """What a directory may hold that is packed: bytes by apparent size (a hole counts), and entries.

    Directories count as files, for each takes an inode too.
    """

    max_bytes: int
    max_files: int
