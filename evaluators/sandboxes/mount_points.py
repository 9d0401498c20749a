"""The mount points of this machine that hold given files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class MountPoint(NamedTuple):
    """One mount point of this machine."""

    path: str
    options: frozenset[str]
    """Those of the mount point itself, such as `ro` and `nosuid`."""


def mount_points(paths: Iterable[Path]) -> list[MountPoint]:
    """The mount points above and below the paths that are on top; of those at one path, the last."""
    found: dict[str, MountPoint] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields[4])
        found[point] = MountPoint(point, frozenset(fields[5].split(",")))
    chosen: dict[str, MountPoint] = {}
    for path in (path.resolve() for path in paths):
        above = next(parent for parent in (path, *path.parents) if str(parent) in found)
        below = [point for point in found if Path(point).is_relative_to(path)]
        chosen |= {point: found[point] for point in (str(above), *below)}
    return list(chosen.values())
