"""`make release`: installs a built wheel into a fresh environment of each supported Python, and scores a patch there.

    python tests/release.py DIST

Prints a row for each interpreter: seconds of `pip install`, megabytes of the environment without pip, seconds of each
command. A Python that is not on this machine is skipped, with that reason; a step that fails exits with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "trl", "accelerate", "ray", "docker", "sklearn")
"""What the extras bring: none of it may come with, or be needed by, the plain install."""
FILES = {
    "calc/__init__.py": "def add(a, b):\n    return a - b\n",
    "tests/test_calc.py": "from calc import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n",
}
FIX = "--- a/calc/__init__.py\n+++ b/calc/__init__.py\n@@ -1,2 +1,2 @@\n def add(a, b):\n-    return a - b\n+    return a + b\n"


class StepFailedError(Exception):
    """A step of the smoke test failed; the message is its output."""


@dataclass(frozen=True)
class Smoke:
    """What one interpreter showed."""

    python: str
    install_seconds: float
    megabytes: float
    largest: str
    """The largest packages, with their megabytes."""
    score_seconds: float


def supported() -> list[str]:
    """The versions that pyproject.toml names in its classifiers, such as 3.11."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    return [found[1] for text in classifiers if (found := re.fullmatch(r".*Python :: (3\.\d+)", text))]


def interpreter(version: str) -> Path | None:
    """An interpreter of that version: on PATH, or one of pyenv's."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [folder / f"python{version}" for folder in folders]
    candidates += [folder / "bin" / "python" for folder in sorted(pyenv.glob(f"{version}.*"), reverse=True)]
    for python in candidates:
        if python.is_file() and _answers(python, version):
            return python
    return None


def _answers(python: Path, version: str) -> bool:
    """Does it run, is it of that version, and can it make environments? A shim of pyenv may be of none."""
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == version


def run(folder: Path, *command: str | Path) -> tuple[str, float]:
    """Standard output and seconds of a command. Raises StepFailedError."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    environment["REGRADE_CACHE"] = str(folder / "cache")
    start = time.monotonic()
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StepFailedError(f"{' '.join(map(str, command))} exits with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout, time.monotonic() - start


def smoke(python: Path, wheel: Path, folder: Path) -> Smoke:
    """Install the wheel and use it. Raises StepFailedError."""
    run(folder, python, "-m", "venv", folder / "venv")
    own = folder / "venv" / "bin"
    pip = (own / "python", "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")
    _, install_seconds = run(folder, *pip, "install", wheel)
    run(folder, *pip, "check")
    version, _ = run(folder, own / "regrade", "--version")
    if version.split() != ["regrade", wheel.name.split("-")[1]]:
        raise StepFailedError(f"regrade --version prints {version!r}, the wheel is {wheel.name}")
    imports = f"import sys, regrade.evaluators, regrade.policy_training, regrade.reports, regrade.cli.main; print([n for n in {HEAVY!r} if n in sys.modules])"
    loaded, _ = run(folder, own / "python", "-c", imports)
    if loaded.strip() != "[]":
        raise StepFailedError(f"the plain install loads {loaded}")
    run(folder, own / "regrade", "doctor")
    repository = folder / "repository"
    for name, text in FILES.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    (folder / "fix.diff").write_text(FIX)
    target = ("--repo", "repository", "--fail-to-pass", "tests/test_calc.py::test_add", "--json")
    output, score_seconds = run(folder, own / "regrade", "score", "fix.diff", *target)
    score = json.loads(output)
    if score["status"] != "scored" or not score["value"] > 0.9:
        raise StepFailedError(f"the fix is scored {output}")
    (site,) = (folder / "venv" / "lib").glob("python3*/site-packages")
    sizes = {path.name: _megabytes(path) for path in site.iterdir() if path.name.split("-")[0] != "pip"}
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:6]
    return Smoke(
        python=run(folder, own / "python", "-V")[0].split()[1],
        install_seconds=install_seconds,
        megabytes=sum(sizes.values()),
        largest=", ".join(f"{name} {sizes[name]:.0f}" for name in largest),
        score_seconds=score_seconds,
    )


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def incomplete(wheel: Path, source: Path) -> Iterator[str]:
    """What is missing in the two distributions."""
    with zipfile.ZipFile(wheel) as archive:
        built = {name for name in archive.namelist() if name.startswith("regrade/")}
    packages = {name.split("/")[1] for name in built}
    yield from (f"{wheel.name} lacks {p}/py.typed" for p in packages if f"regrade/{p}/py.typed" not in built)
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    yield from (f"{source.name} lacks {name}" for name in ("LICENSE", "README.md", "CITATION.cff") if name not in held)
    yield from (
        f"{source.name} lacks {name.removeprefix('regrade/')}"
        for name in sorted(built)
        if name.removeprefix("regrade/") not in held
    )


def _only(dist: Path, pattern: str) -> Path:
    files = sorted(dist.glob(pattern))
    if len(files) != 1:
        sys.exit(f"error: {dist} holds {len(files)} files {pattern}: remove it, and run `make release` again")
    return files[0].resolve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dist", type=Path, help="folder with one wheel and one source distribution")
    dist = parser.parse_args().dist
    wheel, source = _only(dist, "*.whl"), _only(dist, "*.tar.gz")
    failures = [*incomplete(wheel, source)]
    for path in (wheel, source):
        print(f"{path.name}  {path.stat().st_size / 1e6:.1f} MB")
    print("\n| Python | pip install (s) | environment (MB) | first score (s) | largest packages (MB) |\n|-|-|-|-|-|")
    for version in supported():
        python = interpreter(version)
        if python is None:
            print(f"| {version} | skipped: no such interpreter on PATH or under pyenv | | | |", flush=True)
            continue
        folder = Path(tempfile.mkdtemp(prefix="regrade-release-"))
        try:
            shown = smoke(python, wheel, folder)
        except StepFailedError as error:
            failures.append(f"Python {version}: {error}")
            print(f"| {version} | failed, see below | | | |", flush=True)
        else:
            row = (shown.python, f"{shown.install_seconds:.0f}", f"{shown.megabytes:.0f}", f"{shown.score_seconds:.1f}")
            print(f"| {' | '.join(row)} | {shown.largest} |", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    if failures:
        sys.exit("error: " + "\nerror: ".join(failures))


if __name__ == "__main__":
    main()
