"""What the verdict says of policies whose kind is known, beside the baseline of a run of the main job.

    make demo                                                       # or make demo-quick
    python benchmarks/verdicts.py runs/demo --out runs/verdicts     # a quarter of an hour

- *trained*: the run's own candidate, as the run judged it.
- *itself*: the baseline's checkpoint samples so many answers to each of some tasks that each repetition has two sets of
  its own, which are compared as if they came of two policies. A verdict is false then; one in twenty is chance.
- *reckless*: made of references. It fixes far more than the baseline, and half of the time plants a bug in another
  function of the file that it mends.
- *nothing*: changes nothing, and so breaks nothing.

The candidate's checkpoints along its training are tried too, greedily: the report draws them as a curve.

All attempts are executed. The folder that is written is a run: `regrade report` draws it.
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from _latest import record

from regrade.cli.console import progress
from regrade.datasets.mutation.mutants import mutants
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Policy
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task
from regrade.evaluators.analysis.comparison import Comparison, compare
from regrade.evaluators.evaluation.sweeps import Entrant, Judge, Sweep, enter
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.policy_training.loading import load_policy
from regrade.policy_training.policies.scripted import NoOp, Reference
from regrade.policy_training.recipe.tasks import showing_a_file
from regrade.reports.html_report import write_report
from regrade.reports.results import PolicyResult, load_results
from regrade.reports.summary import write_summary
from regrade.rewards import default

GREEDY_INSTEAD = 0.6
"""Temperature of the baseline against itself where its own best is greedy: two greedy answers are one."""
LEFT_OUT = ("checkpoints", "trainer", "attempts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/demo"), help="a finished run of the main job")
    parser.add_argument("--out", type=Path, default=Path("runs/verdicts"), help="a new folder")
    parser.add_argument("--repetitions", type=int, default=20, help="of the baseline against itself")
    parser.add_argument("--attempts", type=int, default=2, help="of each side at each task in a repetition")
    parser.add_argument("--tasks", type=int, default=60, help="tasks of a repetition, drawn from those of the run")
    chosen = parser.parse_args()
    for folder, wrong, advice in (
        (chosen.run, not chosen.run.is_dir(), "is not there: `make demo` makes it"),
        (chosen.out, chosen.out.exists(), "is there already: remove it, or name another one with --out"),
    ):
        if wrong:
            print(f"nothing measured: {folder} {advice}")
            return
    shutil.copytree(chosen.run, chosen.out, ignore=shutil.ignore_patterns(*LEFT_OUT))
    run = Run(chosen.out)
    before = load_results(chosen.out)
    (baseline,) = before.of_role("baseline")
    known = {task.id: showing_a_file(task) for task in load_tasks()}
    tasks = [known[name] for name in sorted(set(baseline.best["task"]))]
    with Scorer() as scorer:
        judge = Judge(scorer=scorer, reward=default, stage=progress)
        policies: dict[str, Policy] = {"reckless": reckless(tasks), "nothing": NoOp("nothing")}
        for name, policy in policies.items():
            enter(run, fixed(name, policy), Sweep(), (), tasks, judge)
        for entrant in checkpoints(chosen.run, scorer):
            enter(run, entrant, Sweep(), (), tasks, judge)
        drawn = random.Random(0).sample(tasks, min(chosen.tasks, len(tasks)))
        count = 2 * chosen.repetitions * chosen.attempts
        again = sampled(chosen.run, chosen.out / "itself", baseline, drawn, count, judge, scorer)
    results = load_results(chosen.out)
    write_summary(results)
    write_report(chosen.out)
    found = {pair.candidate.name: pair.best for pair in results.pairs if pair.baseline.name == baseline.name}
    report(found, list(against_itself(again, chosen.repetitions, chosen.attempts)), len(drawn))


def fixed(name: str, policy: Policy) -> Entrant:
    return Entrant(name=name, role="candidate", load=lambda _: policy, label=name, is_fixed=True)


def checkpoints(folder: Path, scorer: Scorer) -> Iterator[Entrant]:
    """The candidate along its training: before it, after expert iteration, and at its end."""
    run = Run(folder)
    settings = run.manifest.configuration["settings"]
    iterated = settings["rounds"] * settings["round_steps"]
    for name, step in (("agent-sft", 0), ("expert-iteration", iterated), ("rl", iterated + settings["grpo_steps"])):
        path, label = run.checkpoint(name), f"rl@{step}"
        load = partial(loaded, path, scorer)
        yield Entrant(name=label, role="checkpoint", load=load, series="rl", step=step)


def loaded(checkpoint: Path, scorer: Scorer, _tasks: Sequence[Task]) -> Policy:
    return load_policy(str(checkpoint), scorer=scorer)


def reckless(tasks: Sequence[Task]) -> Reference:
    """Applies references, half of them with a bug in another function of the same file."""
    patches = {}
    for place, task in enumerate(tasks):
        assert task.reference is not None
        patches[task.id] = (careless(task, place) if place % 2 else None) or task.reference
    return Reference(patches, "reckless")


def careless(task: Task, seed: int) -> Patch | None:
    """The fix, with a bug elsewhere in its file; whether any test notices is not looked at."""
    assert task.target is not None
    assert task.reference is not None
    file = task.target.file
    fixed = prepare(task, task.reference).after.read(file)
    for mutant in mutants(fixed, file, seed):
        if mutant.function != task.target.function:
            return Patch.between({file: task.base.read(file)}, {file: mutant.source})
    return None


def sampled(
    source: Path,
    out: Path,
    baseline: PolicyResult,
    tasks: Sequence[Task],
    count: int,
    judge: Judge,
    scorer: Scorer,
) -> pd.DataFrame:
    """So many attempts at each task by the baseline's checkpoint."""
    temperature = baseline.temperature or GREEDY_INSTEAD
    load = partial(loaded, Run(source).checkpoint(baseline.name), scorer)
    entrant = Entrant(name=baseline.name, role="baseline", load=load, label=baseline.label)
    return enter(Run(out), entrant, Sweep((temperature,), count), (), tasks, judge)


def against_itself(rows: pd.DataFrame, repetitions: int, attempts: int) -> Iterator[Comparison]:
    """Compare the baseline with itself by attempts that no other repetition has."""
    for number in range(repetitions):
        first = 2 * number * attempts
        sides = []
        for start in (first, first + attempts):
            mine = rows[(rows["sample"] >= start) & (rows["sample"] < start + attempts)]
            sides.append(mine.assign(sample=mine["sample"] - start))
        yield compare(sides[0], sides[1].assign(policy="itself"))


def report(found: dict[str, Comparison], itself: Sequence[Comparison], tasks: int) -> None:
    print(f"{'against the baseline':24} {'clean fix':>28} {'breakage':>28}  verdict")
    figures: dict[str, Any] = {"verdicts": {}}
    for name, comparison in found.items():
        shown = [told(comparison, metric) for metric in ("fix_and_clean", "breakage_incidence")]
        print(f"{name:24} {shown[0]:>28} {shown[1]:>28}  {comparison.words}")
        figures["verdicts"][name] = comparison.verdict
    counts = Counter(comparison.verdict for comparison in itself)
    figures["itself"] = dict(counts)
    figures["tasks_of_itself"] = tasks
    print(f"itself, {len(itself)} times over {tasks} tasks: " + ", ".join(f"{v} {n}" for v, n in counts.most_common()))
    record("verdicts", figures)


def told(comparison: Comparison, metric: str) -> str:
    """A difference in points, with its interval."""
    found = comparison.metrics[metric]
    low, high = 100 * found.low, 100 * found.high
    return f"{100 * found.difference:+.1f} [{low:+.1f}, {high:+.1f}]"


if __name__ == "__main__":
    main()
