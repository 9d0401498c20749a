"""The large package that benchmarks measure with: networkx, 671 files and 6,157 tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REQUIREMENT = "networkx==3.6.1"


def networkx(folder: Path) -> Path:
    """The root of its source distribution, fetched by pip into the folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", REQUIREMENT]
    subprocess.run([*command, "--no-build-isolation", "--dest", str(folder)], check=True)
    archive = next(folder.glob("networkx-*.tar.gz"))
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(folder)], check=True)
    return folder / archive.name.removesuffix(".tar.gz")
