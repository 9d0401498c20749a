"""A Docker image in the shape of SWE-bench's, built from programs of this machine: no registry, no network.

The repository is at /testbed, with a history; python and pytest are in an environment that shell lines activate.
"""

from __future__ import annotations

import importlib.metadata
import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("sh", "bash", "cat", "mkfifo", "chmod", "sleep", "rm")
ENVIRONMENT = "/opt/miniconda3/envs/testbed"
ACTIVATE = "source /opt/miniconda3/bin/activate && conda activate testbed"
LEFT_OUT = {"test", "site-packages", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "__pycache__"}
PACKAGES = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
CONDA = f'conda() {{ export PATH="{ENVIRONMENT}/bin:$PATH" CONDA_DEFAULT_ENV="$2"; }}\n'


def archive(repository: dict[str, str]) -> bytes:
    """A tar archive of the image's files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        binaries = [Path(sys._base_executable).resolve()]  # type: ignore[attr-defined]
        tar.add(binaries[0], f"{ENVIRONMENT[1:]}/bin/python")
        stdlib = Path(sysconfig.get_paths()["stdlib"])
        inside = f"{ENVIRONMENT[1:]}/lib/{stdlib.name}"
        tar.add(stdlib, inside, filter=_kept)
        binaries += stdlib.glob("lib-dynload/*.so")
        for name in PROGRAMS:
            binaries.append(Path(str(shutil.which(name))).resolve())
            tar.add(binaries[-1], f"bin/{name}")
        for library, target in _libraries(binaries).items():
            tar.add(Path(library).resolve(), target)
        for path, source in _package_files():
            tar.add(source, f"{inside}/site-packages/{path}")
        texts = {f"testbed/{path}": text for path, text in repository.items()}
        texts |= {
            "testbed/.git/FUTURE": "the fix",
            "opt/miniconda3/bin/activate": CONDA,
            "etc/passwd": "root:x:0:0::/:\n",
        }
        for path, text in texts.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text.encode()), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return data.getvalue()


def _kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = entry.name.rpartition("/")[2]
    return None if name in LEFT_OUT or name.startswith("config-") or name.endswith(".a") else entry


def _package_files() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in importlib.metadata.files(package) or ():
            source = Path(str(path.locate()))
            if (path.suffix in (".py", ".txt") and ".." not in path.parts and source.is_file()) or path.name in (
                "METADATA",
                "RECORD",
            ):
                yield str(path), source


def _libraries(binaries: list[Path]) -> dict[str, str]:
    """Shared library -> its path in the image. An interpreter's own are put where the loader looks for them."""
    printed = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    found = set(re.findall(r"(/\S+) \(0x", printed))
    system = ("/lib/", "/lib64/", "/usr/lib/")
    return {path: path[1:] if path.startswith(system) else f"usr/lib/{Path(path).name}" for path in sorted(found)}
