"""How fast a stored run is rewarded anew, on one core, against scoring the same attempts again.

Attempts are real ones: the reference and a do-nothing patch for each of a number of held-out tasks, executed once, with
the evidence that the reward `default` needs. Patches that differ are the hard case, so each is counted once.

    python benchmarks/rescoring.py --tasks 60
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from _latest import record

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.sources import load_tasks
from regrade.evaluators.evaluation.rescoring import rescore
from regrade.evaluators.evaluation.rollout_scoring import evaluate
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.evidence_file import EvidenceFile, evidence_path
from regrade.rewards import default


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=60, help="held-out tasks, evenly over the packages")
    parser.add_argument("--repeats", type=int, default=20, help="times that the rows are rewarded anew")
    chosen = parser.parse_args()
    tasks = load_tasks(split="held_out")
    tasks = tasks[:: max(1, len(tasks) // chosen.tasks)][: chosen.tasks]
    rollouts = [
        Rollout(task_id=task.id, policy="bench", temperature=0.0, sample=sample, seed=0, patch=patch)
        for task in tasks
        for sample, patch in enumerate((task.reference or Patch(""), Patch("")))
    ]
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as folder:
        out = Path(folder, "rows.jsonl")
        with Scorer(cache=Path(folder, "cache")) as scorer:
            evaluate(rollouts[:2], tasks, scorer, default)  # environments and workers are made once, not timed
            began = time.perf_counter()
            evaluate(rollouts, tasks, scorer, default, out)
            fresh = (time.perf_counter() - began) / len(rollouts)
        rows = journal.read(out)
        began = time.perf_counter()
        kept = EvidenceFile(evidence_path(out))
        opened = time.perf_counter() - began
        began = time.perf_counter()
        for _ in range(chosen.repeats):
            assert len(list(rescore(rows, kept, default))) == len(rows)
        again = (time.perf_counter() - began) / chosen.repeats / len(rows)
    print(f"{len(rows)} different attempts at {len(tasks)} tasks")
    print(f"scored by execution, all cores  {1 / fresh:10.1f} attempts/s")
    print(f"rewarded anew, one core         {1 / again:10.1f} attempts/s   {fresh / again:.0f} times as fast")
    print(f"opening the evidence takes {opened:.3f} s")
    figures = {"executed_per_second": round(1 / fresh, 1), "rescored_per_second": round(1 / again, 1)}
    record("rescoring", {"attempts": len(rows), **figures, "ratio": round(fresh / again, 1)})


if __name__ == "__main__":
    main()
