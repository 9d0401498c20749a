"""Without the libraries of training, all but training works, and training says in one line what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from regrade.policy_training.reward_models.loading import write_record

TRAINING = ("torch", "transformers", "trl", "gguf", "accelerate")
STATISTICS = ("scipy", "statsmodels")
BLOCKER = """\
import sys


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Blocker())
from regrade.cli.main import main

sys.argv = ["regrade", *{arguments!r}]
main()
"""


def run(folder: Path, *arguments: str, blocked: tuple[str, ...] = TRAINING) -> subprocess.CompletedProcess[str]:
    program = BLOCKER.format(blocked=blocked, arguments=arguments)
    environment = {**os.environ, "REGRADE_CACHE": str(folder / "cache"), "GLIBC_TUNABLES": ""}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "grpo", "--steps", "1", "--out", "run"),
        ("evaluate", "smollm2-135m", "--tasks", "TASKS", "--out", "run"),
        ("score", "fix.diff", "--repo", "repo", "--reward", "learned:model"),
        ("rank", "fix.diff", "--repo", "repo", "--model", "model"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
@pytest.mark.usefixtures("repo")
def test_training_names_what_to_install(tasks: Path, fix: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    fix.rename(tmp_path / "fix.diff")
    (tmp_path / "model").mkdir()
    write_record(tmp_path / "model", "language", {})
    done = run(tmp_path, *(str(tasks) if word == "TASKS" else word for word in arguments))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line == done.stderr.splitlines()[-1]
    assert "is not installed: run pip install '.[train]' in the checkout of regrade" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "runs").exists()


def test_the_rest_works_without_them(tasks: Path, repo: Path, fix: Path, tmp_path: Path) -> None:
    scoring = ("score", str(fix), "--repo", str(repo), "--fail-to-pass", "tests/test_calc.py::test_add")
    done = run(tmp_path, *scoring, blocked=(*TRAINING, *STATISTICS))
    assert (done.returncode, "fixes 1 of 1" in done.stdout) == (0, True), done.stderr
    policies = ("no-op", "reference", "--role", "candidate", "--baseline", "no-op")
    for command in (
        ("evaluate", *policies, "--tasks", str(tasks), "--out", "run"),
        ("compare", "run"),
        ("report", "run"),
        ("rewards", "audit", "run"),
        ("rescore", "run", "--reward", "tests"),
    ):
        done = run(tmp_path, *command)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()


def test_no_advice_names_a_release_that_does_not_exist() -> None:
    root = Path(__file__).resolve().parents[2]
    pages = [*root.glob("*.md"), *root.glob("docs/*.md")]
    files = [
        path
        for folder in ("cli", "datasets", "rewards", "evaluators", "reports", "policy_training")
        for path in root.glob(f"{folder}/**/*.py")
    ]
    for path in pages + files:
        for words in ("pip install regrade", 'install "regrade', "install 'regrade"):
            assert words not in path.read_text("utf-8"), path
