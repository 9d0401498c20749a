"""Type checkers know what a composition is, and what a reward of one's own takes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """\
from typing import assert_type

from regrade.rewards import Breakdown, Diff, EvidenceSet, Reward, Score, builds, minimum, reward, style, tests
from regrade.rewards.algebra import AtLeast, Clip, Minimum, Named, OnlyIf, Sum


@reward
def one_file(diff: Diff) -> Score:
    return Score(1 / max(1, len(diff.files)))


assert_type(one_file(Diff(1, 1, ("a.py",))), Score)
assert_type(0.6 * tests + 0.4 * style, Sum)
assert_type(tests / 2, Sum)
assert_type((0.6 * tests + 0.4 * one_file).only_if(builds), OnlyIf)
assert_type(tests.clip(0.1, 0.9), Clip)
assert_type(style.at_least(0.5), AtLeast)
assert_type(minimum(tests, style), Minimum)
assert_type((1 * tests).named("mine"), Named)
assert_type(tests.evaluate(EvidenceSet()), Breakdown)
composed: Reward = 0.5 * tests.only_if(builds)
"""
WRONG = {
    'one_file("a.py")': "takes a Diff",
    "tests * style": "two rewards have no product",
    "tests.only_if(0.5)": "a number is no gate",
    'tests + "style"': "a text is no reward",
}
MANY = PROGRAM + "".join(f"{line}\n" for line in WRONG)


def wrong_lines(text: str) -> set[int]:
    first = text.count("\n") - len(WRONG) + 1
    return set(range(first, first + len(WRONG)))


@pytest.mark.slow
def test_mypy_infers_the_types_of_compositions(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "own.py").write_text(MANY)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--explicit-package-bases",
        "--namespace-packages",
    ]
    command += [
        "--cache-dir",
        str(tmp_path / "cache"),
        "--ignore-missing-imports",
        "--follow-imports=silent",
        str(tmp_path / "own.py"),
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT / ".typing"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert found == wrong_lines(MANY), done.stdout + done.stderr


@pytest.mark.slow
def test_pyright_infers_the_types_of_compositions(tmp_path: Path) -> None:
    program = shutil.which("pyright", path=str(Path(sys.executable).parent)) or shutil.which("pyright")
    if program is None or shutil.which("node") is None:
        pytest.skip("needs pyright and node")
    (tmp_path / "own.py").write_text(MANY)
    settings = {
        "extraPaths": [str(ROOT / ".typing")],
        "include": ["own.py"],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [program, "--outputjson", "--pythonpath", sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout.startswith("{"):
        pytest.skip(f"pyright does not run here: {(done.stderr or done.stdout).strip()[-200:]}")
    records = json.loads(done.stdout)["generalDiagnostics"]
    found = {
        record["range"]["start"]["line"] + 1
        for record in records
        if record["severity"] == "error" and record["file"].endswith("own.py")
    }
    assert wrong_lines(MANY) <= found <= wrong_lines(MANY), records
