"""Locks requirements: the exact versions that pip would install, from wheels alone, so that nothing of them is run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from regrade.datasets.errors import UserError

LOCKS = "locks"
"""Name of the folder in the cache."""
LOCK_SECONDS = 900


def lock(requirements: Sequence[str], cache: Path, constraints: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """`name==version` of each distribution that the requirements need, sorted; the same ones again for the same
    requirements, without network.

    Args:
        constraints: normalised name -> version, of a lock that the repository has.

    Raises:
        UserError: pip finds no versions that fit, or one has no wheel for this Python; with pip's reason.
    """
    if not requirements:
        return ()
    pinned = [f"{name}=={version}" for name, version in sorted((constraints or {}).items())]
    key = hashlib.sha256(json.dumps([sorted(requirements), pinned, sys.version]).encode()).hexdigest()[:16]
    path = cache / LOCKS / f"{key}.json"
    try:
        return tuple(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        locked = _resolved(requirements, pinned)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(locked), "utf-8")
    partial.replace(path)
    return locked


def _resolved(requirements: Sequence[str], pinned: Sequence[str]) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="regrade-lock-") as name:
        folder = Path(name)
        (folder / "requirements.txt").write_text("".join(f"{each}\n" for each in requirements), "utf-8")
        (folder / "constraints.txt").write_text("".join(f"{each}\n" for each in pinned), "utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
        command += ["--ignore-installed", "--only-binary", ":all:", "--report", str(folder / "report.json")]
        command += ["--requirement", str(folder / "requirements.txt"), "--constraint", str(folder / "constraints.txt")]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=LOCK_SECONDS,
                env={**os.environ, "PIP_NO_INPUT": "1"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"locking {_named(requirements)} failed: {error}") from error
        if done.returncode:
            raise UserError(
                f"locking {_named(requirements)} failed: {_reason(done.stderr)} (each needs a wheel for Python "
                f"{sys.version_info.major}.{sys.version_info.minor}; or install the dependencies of the tests, "
                "and name that interpreter with `python=PATH`)"
            )
        report = json.loads((folder / "report.json").read_text("utf-8"))
    metadata = [entry["metadata"] for entry in report["install"]]
    return tuple(sorted(f"{each['name']}=={each['version']}" for each in metadata))


def _named(requirements: Sequence[str]) -> str:
    more = f" and {len(requirements) - 6} more" if len(requirements) > 6 else ""
    return f"the requirements {', '.join(requirements[:6])}{more}"


def _reason(stderr: str) -> str:
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    return " ".join((errors[0] if errors else stderr.strip() or "pip failed without a message").split())[:300].rstrip(
        ". "
    )
