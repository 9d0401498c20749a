"""What the applying of a patch costs: each form of it, and its share of all static evidence of a patch.

    python benchmarks/applying.py --patches 30

The rows are ratios to one run of `git --version`, which is what starting git costs on this machine at that moment:
they are comparable between machines, and on a busy one.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from _latest import record

from regrade.datasets.applying import changed_files
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.scoring.probes import STATIC
from regrade.evaluators.scoring.static_workers import StaticWorkers

TEXT = "".join(f"def f{number}(a):\n    return a + {number}\n\n\n" for number in range(60))
FORMS: dict[str, Callable[[str], str]] = {
    "as git writes it": lambda text: text,
    "without a last newline": lambda text: text.rstrip("\n"),
    "without prefixes": lambda text: text.replace("a/m.py", "m.py").replace("b/m.py", "m.py"),
    "refused": lambda text: text.replace("def f5(", "def g5("),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=30, help="of each form")
    chosen = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as name:
        Path(name, "m.py").write_text(TEXT)
        reference = Patch.between({"m.py": TEXT}, {"m.py": TEXT.replace("a + 3\n", "a + 1000\n")})
        task = Task(
            id="t", repository="r", base=Tree(Path(name)), instruction="", fail_to_pass=(), pass_to_pass=(),
            reference=reference,
        )  # fmt: skip
        for form, written in FORMS.items():
            figures[form] = ratio(lambda text: _apply(task, text), map(written, texts(chosen.patches)))
        workers = StaticWorkers()
        try:
            _static_evidence(workers, task, Patch(next(texts(1))))  # the process starts
            figures["applied, with all static evidence"] = ratio(
                lambda text: _static_evidence(workers, task, Patch(text)), texts(chosen.patches)
            )
        finally:
            workers.close()
    for row, times in figures.items():
        print(f"{row:40} {times:6.1f} runs of git")
    record("applying", {"patches": chosen.patches, **{row: round(times, 1) for row, times in figures.items()}})


def texts(count: int) -> Iterator[str]:
    """Different patches, as git writes them."""
    for number in range(count):
        yield Patch.between({"m.py": TEXT}, {"m.py": TEXT.replace("a + 5\n", f"a + {number}00\n")}).text


def ratio(act: Callable[[str], None], patches: Iterator[str]) -> float:
    """The median of the times of an act, each divided by that of a run of git just before it."""
    ratios = []
    for text in patches:
        began = time.perf_counter()
        subprocess.run(["git", "--version"], check=True, capture_output=True)
        middle = time.perf_counter()
        act(text)
        ratios.append((time.perf_counter() - middle) / (middle - began))
    return statistics.median(ratios)


def _apply(task: Task, text: str) -> None:
    try:
        changed_files(task.base, Patch(text))
    except PatchError:
        return


def _static_evidence(workers: StaticWorkers, task: Task, patch: Patch) -> None:
    workspace = prepare(task, patch)
    for kind in STATIC:
        workers.evidence(kind, workspace.before, workspace.after, patch, task)


if __name__ == "__main__":
    main()
