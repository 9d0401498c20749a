"""Grades a Harbor task inside its container. Copied into each task as `tests/verify.py`; needs pytest alone.

    python -I verify.py REPOSITORY LOGS

Restores the tests of the base, runs them, and writes `reward.json`: 1 if all FAIL_TO_PASS tests pass and no
PASS_TO_PASS test is broken, else 0. A candidate that crashes or hangs gets 0. If the container itself is at fault
(no pytest, no space), it writes no reward, which Harbor counts as an error and not as a failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

INFRASTRUCTURE = 3
PLUGIN = """
import json, os

RANK = {"passed": 0, "xfailed": 1, "skipped": 2, "failed": 3, "error": 4}
outcomes = {}


def pytest_runtest_logreport(report):
    if hasattr(report, "wasxfail"):
        status = "xfailed" if report.skipped else "failed" if report.when == "call" else report.outcome
    else:
        status = "error" if report.failed and report.when != "call" else report.outcome
    before = outcomes.get(report.nodeid)
    if before is None or RANK[status] > RANK[before]:
        outcomes[report.nodeid] = status
    if report.when == "teardown":
        with open(os.environ["OUTCOMES"], "a") as file:
            file.write(json.dumps([report.nodeid, outcomes[report.nodeid]]) + "\\n")
"""
"""A test's status is the worst of its set-up, call and tear-down; it is written as soon as the test has ended."""


def main(repository: Path, logs: Path) -> int:
    """The exit status; Harbor ignores it."""
    folder = Path(__file__).resolve().parent
    reward = logs / "reward.json"
    reward.unlink(missing_ok=True)
    try:
        settings = json.loads((folder / "verifier.json").read_text("utf-8"))
        check_environment()
        restore(settings["protected"], folder / "base", repository)
        outcomes = run(settings, repository)
        logs.mkdir(parents=True, exist_ok=True)
        (logs / "outcomes.json").write_text(json.dumps(outcomes, indent=1, sort_keys=True) + "\n", "utf-8")
        partial = logs / "reward.json.partial"
        partial.write_text(json.dumps(rewards(settings, outcomes)) + "\n", "utf-8")
        partial.replace(reward)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        print(f"no reward, because the environment failed: {type(error).__name__}: {error}", file=sys.stderr)
        return INFRASTRUCTURE
    return 0


def check_environment() -> None:
    """Raises RuntimeError: pytest cannot be imported, whatever the candidate did."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import pytest"], cwd="/", capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["pytest cannot be imported"])[-1])


def restore(protected: dict[str, Any], base: Path, repository: Path) -> None:
    """Put the base's tests and configuration in the place of the candidate's; remove what it added to them."""
    pattern, exempt = re.compile(protected["pattern"]), set(protected["exempt"])
    known = {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()}
    for path in sorted(repository.rglob("*")):
        name = path.relative_to(repository).as_posix()
        is_file = path.is_file() or path.is_symlink()
        if (
            is_file
            and not name.startswith(".git/")
            and (pattern.fullmatch(name) and name not in exempt)
            and name not in known
        ):
            path.unlink()
    for name in sorted(known):
        target = repository / name
        for parent in reversed(target.relative_to(repository).parents[:-1]):
            if (repository / parent).is_symlink() or (repository / parent).is_file():
                (repository / parent).unlink()
        if target.is_symlink():
            target.unlink()
        elif target.is_dir():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(base / name, target)


def run(settings: dict[str, Any], repository: Path) -> dict[str, str]:
    """Test -> its status, of all tests that ended within the time limit."""
    with tempfile.TemporaryDirectory() as name:
        Path(name, "verifier_outcomes.py").write_text(PLUGIN, "utf-8")
        results = Path(name, "outcomes.jsonl")
        folders = [name, *(os.path.normpath(repository / folder) for folder in settings["python_path"])]
        environment = {
            **os.environ,
            **settings["environment"],
            "PYTHONPATH": ":".join(folders),
            "OUTCOMES": str(results),
        }
        command = [sys.executable, "-m", "pytest", "-p", "verifier_outcomes", "--rootdir", ".", *settings["arguments"]]
        process = subprocess.Popen(command, cwd=repository, env=environment, start_new_session=True)
        try:
            process.wait(settings["seconds"])
        except subprocess.TimeoutExpired:
            print(f"the tests did not end within {settings['seconds']} s", file=sys.stderr)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        lines = results.read_text("utf-8", "replace").splitlines() if results.exists() else []
    return dict(json.loads(line) for line in lines if line.endswith("]"))


def rewards(settings: dict[str, Any], outcomes: dict[str, str]) -> dict[str, float]:
    """The reward, and the two numbers that it is made of. A test that did not run has not passed."""
    fixed = [test for test in settings["fail_to_pass"] if outcomes.get(test) == "passed"]
    broken = [test for test in settings["pass_to_pass"] if outcomes.get(test) != "passed"]
    is_clean = len(fixed) == len(settings["fail_to_pass"]) and not broken
    return {
        "reward": float(is_clean),
        "fixed_share": len(fixed) / len(settings["fail_to_pass"]),
        "broken_tests": float(len(broken)),
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
