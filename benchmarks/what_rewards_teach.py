"""What does each criterion of a reward cost, and what does it buy? One policy, trained with four rewards.

After the same SFT, GRPO trains it with (a) the tests alone, (b) tests and impact, (c) tests and quality behind the gate
`resolved`, (d) the same quality without the gate. Everything else is the same, seed by seed. Each policy is judged on
held-out packages: clean fixes, breakage, lint and complexity, each with its interval, and the paired difference from
the tests alone. The second table says what drove the learning: the share of each component in the variance within
groups, and in how many of them it decides.

    python benchmarks/what_rewards_teach.py --out runs/what-rewards-teach            # some hours on two cores
    python benchmarks/what_rewards_teach.py --out runs/quick --quick                 # every part; the figures are noise
    python benchmarks/what_rewards_teach.py --out runs/plain --plain --seeds 0 1     # without prices of breakage etc.

A killed run goes on where it stopped: a trained policy is not trained again, a judged attempt not judged again.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from shutil import rmtree

import pandas as pd
from _latest import record as record_figures

from regrade.datasets.rollouts import Sampling
from regrade.datasets.sources import load_tasks
from regrade.evaluators.analysis import metrics, side_metrics
from regrade.evaluators.analysis.clustered_means import Sample
from regrade.evaluators.analysis.component_effects import GROUPS
from regrade.evaluators.analysis.differences import outcomes
from regrade.evaluators.analysis.runs import run_spread
from regrade.evaluators.analysis.training_audit import TrainingAudit, audit_steps
from regrade.evaluators.analysis.uncertainty import NO_RUNS, difference_rule, span
from regrade.evaluators.evaluation.sweeps import Entrant, Judge, record
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
from regrade.policy_training.loading import load_policy
from regrade.policy_training.policies.models import EMBEDDED, load_model
from regrade.policy_training.recipe.phases import Phases
from regrade.policy_training.recipe.settings import Recipe
from regrade.policy_training.recipe.tasks import RecipeTasks, choose_tasks
from regrade.policy_training.train import TrainingPlan, train
from regrade.policy_training.trainers.callbacks import Budget
from regrade.rewards import complexity, default, impact, resolved, small_diff, style, tests
from regrade.rewards.algebra import Reward

SFT, TESTS = "sft", "tests"
quality = (0.4 * style.otherwise(1.0) + 0.4 * complexity.otherwise(1.0) + 0.2 * small_diff.otherwise(1.0)).named(
    "quality"
)
REWARDS: Mapping[str, Reward] = {
    TESTS: tests,
    "impact": 0.7 * tests + 0.3 * impact.otherwise(1.0),
    "gated": 0.7 * tests + 0.3 * quality.only_if(resolved),
    "ungated": 0.7 * tests + 0.3 * quality,
}
LABELS = {
    SFT: "before (SFT)",
    TESTS: "tests alone",
    "impact": "tests and impact",
    "gated": "quality behind `resolved`",
    "ungated": "quality without the gate",
}
COLUMNS = (
    metrics.FIX_AND_CLEAN,
    metrics.BREAKAGE_INCIDENCE,
    metrics.NO_OP_RATE,
    side_metrics.NEW_LINT,
    side_metrics.LINT_ADDED,
    side_metrics.COMPLEXITY,
    side_metrics.DIFF_SIZE,
)
FULL = Recipe(check_every=20, grpo_steps=60)
QUICK = replace(
    FULL,
    max_prompt_tokens=90,
    repositories=2,
    validation=4,
    held_out=6,
    sft_steps=3,
    check_every=3,
    grpo=replace(FULL.grpo, prompts_per_step=2, samples_per_prompt=4, steps_per_generation=1),
    grpo_steps=2,
    held_out_samples=2,
)
"""Every part for real; its figures are noise."""


@dataclass(frozen=True)
class Experiment:
    """What is trained and judged, and where it is kept."""

    out: Path
    settings: Recipe
    model: str
    demonstrations: int
    tests_only: int
    temperature: float
    is_plain: bool
    keeps_checkpoints: bool
    scorer: Scorer
    chosen: dict[int, RecipeTasks] = field(default_factory=dict)
    """Seed -> its tasks."""

    def reward(self, name: str) -> TrainingReward:
        composed = REWARDS[name]
        return TrainingReward(reward=composed) if self.is_plain else replace(DEFAULT_TRAINING_REWARD, reward=composed)

    def check(self) -> None:
        """Raises UserError if the folder holds another experiment; seeds and rewards may be added."""
        sizes = {key: getattr(self, key) for key in ("model", "demonstrations", "tests_only", "temperature")}
        pays = {name: self.reward(name).to_json() for name in REWARDS}
        Run(self.out).configure({"settings": asdict(self.settings), "rewards": pays, **sizes})

    def run(self, name: str, seed: int) -> Run:
        return Run(self.out / f"{name}-s{seed}")

    def tasks(self, seed: int) -> RecipeTasks:
        if seed not in self.chosen:
            self.chosen[seed] = choose_tasks(
                cache(lambda split: load_tasks(split=split)),
                load_model(self.model).encode,
                self.settings,
                demonstrations=self.demonstrations,
                tests_only=self.tests_only,
                seed=seed,
            )
        return self.chosen[seed]

    def start(self, seed: int) -> Path:
        """The checkpoint of SFT, from which all rewards start."""
        run, tasks = self.run(SFT, seed), self.tasks(seed)
        with run.writing():
            Phases(run, self.settings, seed, stage, self.scorer).sft(self.model, tasks.demonstrations, tasks.validation)
        return run.checkpoint(SFT)

    def trained(self, name: str, seed: int) -> Path:
        """The checkpoint of GRPO with a reward."""
        start = self.start(seed)
        if name == SFT:
            return start
        run, steps = self.run(name, seed), self.settings.grpo_steps
        if not run.finished("grpo"):
            plan = TrainingPlan(
                settings=self.settings.grpo, model=str(start), budget=Budget(steps), reward=self.reward(name), seed=seed
            )
            with stage(f"{name}, seed {seed}: GRPO") as report:
                train(
                    plan, self.tasks(seed).tests_only, self.scorer, run.folder,
                    progress=lambda _what, done, total: report(done, total),
                )  # fmt: skip
        return run.checkpoint("grpo")

    def judged(self, name: str, seed: int) -> pd.DataFrame:
        """The rows of a policy on the held-out tasks; trains it first."""
        checkpoint, run, held_out = self.trained(name, seed), self.run(name, seed), self.tasks(seed).held_out
        entrant = Entrant(
            name=name,
            role="baseline" if name == TESTS else "candidate",
            load=lambda _tasks: load_policy(str(checkpoint), scorer=self.scorer),
            label=f"{LABELS[name]}, seed {seed}",
        )
        judge = Judge(scorer=self.scorer, reward=default, seed=seed, stage=stage)
        samplings = [Sampling(self.temperature, self.settings.held_out_samples)]
        run.record_tasks(held_out)
        run.add_policy(name, entrant.role, best_temperature=self.temperature, label=entrant.label)
        with run.writing(), run.phase("judge"):
            rows = record(entrant, lambda: entrant.load(held_out), held_out, samplings, judge, run.evaluation(name))
        if name != SFT and not self.keeps_checkpoints:
            rmtree(checkpoint, ignore_errors=True)  # half a gigabyte
        return rows


@contextmanager
def stage(title: str) -> Iterator[Callable[[int, int], None]]:
    print(f"... {title}", flush=True)
    yield lambda _done, _total: None


def main() -> None:
    options = _options()
    sizes = {
        "held_out": options.held_out, "grpo_steps": options.steps, "max_prompt_tokens": options.max_prompt_tokens,
        "held_out_samples": options.attempts,
    }  # fmt: skip
    base = QUICK if options.quick else FULL
    settings = replace(base, **{key: value for key, value in sizes.items() if value is not None})
    with Scorer(sandbox=options.sandbox) as scorer:
        experiment = Experiment(
            out=options.out, settings=settings, model=options.model, temperature=options.temperature,
            demonstrations=options.demonstrations or (4 if options.quick else 32),
            tests_only=options.tests_only or (8 if options.quick else 140), is_plain=options.plain,
            keeps_checkpoints=options.keep_checkpoints, scorer=scorer,
        )  # fmt: skip
        experiment.check()
        rows: dict[str, list[pd.DataFrame]] = {}
        steps: dict[str, list[Mapping[str, float]]] = {}
        for seed in options.seeds:  # a seed is complete before the next begins
            for name in (SFT, *options.rewards):
                rows.setdefault(name, []).append(experiment.judged(name, seed))
                logged = experiment.run(name, seed).training().get("grpo", ())
                steps.setdefault(name, []).extend(step for step in logged if step.get(GROUPS) is not None)
    tables = {name: pd.concat(found, ignore_index=True) for name, found in rows.items()}
    audits = {name: audit_steps("grpo", found) for name, found in steps.items() if name != SFT and found}
    print(held_out_table(tables))
    print(components_table(audits))
    for name, audit in audits.items():
        for finding in audit.findings:
            print(f"{LABELS[name]}: {finding}")
    if not options.quick:
        record_figures("what_rewards_teach", figures_of(tables, audits))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; a killed run goes on in it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rewards", nargs="+", choices=list(REWARDS), default=list(REWARDS))
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--plain", action="store_true", help="pay the reward alone, without prices of breakage etc.")
    parser.add_argument("--keep-checkpoints", action="store_true", help="of GRPO too, half a gigabyte each")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try every part")
    parser.add_argument("--demonstrations", type=int, help="tasks of SFT (default 32)")
    parser.add_argument("--tests-only", type=int, help="tasks of GRPO (default 140)")
    parser.add_argument("--steps", type=int, help=f"optimizer steps of GRPO (default {FULL.grpo_steps})")
    parser.add_argument("--held-out", type=int, help=f"tasks of the verdict (default {FULL.held_out})")
    parser.add_argument("--attempts", type=int, help=f"attempts per held-out task (default {FULL.held_out_samples})")
    parser.add_argument("--temperature", type=float, default=0.6, help="of all policies, when judged")
    parser.add_argument("--max-prompt-tokens", type=int, help=f"(default {FULL.max_prompt_tokens})")
    parser.add_argument("--sandbox", default="auto")
    return parser.parse_args()


def in_words(value: float, low: float, high: float, *, is_rate: bool, sign: str = "") -> str:
    scale, unit, form = (100, " %", f"{sign}.1f") if is_rate else (1, "", f"{sign}.2f")
    if math.isnan(value):
        return "–"
    if math.isnan(low):  # of a single function
        return f"{scale * value:{form}}{unit}"
    return f"{scale * value:{form}}{unit} [{scale * low:{form}}, {scale * high:{form}}]"


def difference(baseline: pd.DataFrame, candidate: pd.DataFrame, metric: metrics.Metric) -> tuple[float, float, float]:
    """Of the paired tasks, with the variance between seeds: the difference and its 95 % interval."""
    both = outcomes(baseline, candidate, metric)
    sample = Sample.of_tasks(both, both["candidate"] - both["baseline"])
    if sample.n_functions < 2:
        return (float("nan"),) * 3
    most = 1.0 if metric.is_rate else span(pd.concat([metric.of_rows(rows) for rows in (baseline, candidate)]))
    runs = run_spread(baseline, candidate, metric)
    low, high = difference_rule(sample, most, NO_RUNS if runs is None else runs.of_difference).interval()
    return sample.mean, low, high


def held_out_table(tables: Mapping[str, pd.DataFrame]) -> str:
    """Each metric of each policy, and below it the difference from the tests alone."""
    lines = [
        f"| trained with | {' | '.join(metric.label.lower() for metric in COLUMNS)} |", "|-|" + "-|" * len(COLUMNS)
    ]  # fmt: skip
    for name, rows in tables.items():
        found = [metrics.estimate(rows, metric) for metric in COLUMNS]
        cells = [
            in_words(one.value, one.low, one.high, is_rate=metric.is_rate)
            for metric, one in zip(COLUMNS, found, strict=True)
        ]
        lines.append(f"| {LABELS[name]} | {' | '.join(cells)} |")
    if TESTS in tables:
        for name in (name for name in tables if name not in (SFT, TESTS)):
            cells = [
                in_words(*difference(tables[TESTS], tables[name], metric), is_rate=metric.is_rate, sign="+")
                for metric in COLUMNS
            ]
            lines.append(f"| {LABELS[name]} − tests alone | {' | '.join(cells)} |")
    return "\n".join(["", *lines, ""])


def components_table(audits: Mapping[str, TrainingAudit]) -> str:
    """Of each training, the components with an effect: share of the variance within groups, and groups decided."""
    lines = ["| trained with | component | mean, first | mean, last | share | decides |", "|-|-|-|-|-|-|"]
    for name, audit in audits.items():
        for each in audit.components:
            if each.share:
                means = ["" if value is None else f"{value:.3f}" for value in (each.first, each.last)]
                cells = [LABELS[name], f"`{each.name}`", *means, f"{each.share:.0%}", f"{each.decides or 0.0:.0%}"]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def figures_of(
    tables: Mapping[str, pd.DataFrame], audits: Mapping[str, TrainingAudit]
) -> dict[str, float | dict[str, float]]:
    """For `latest.json`."""
    figures: dict[str, float | dict[str, float]] = {}
    for name, rows in tables.items():
        found = {metric.name: metrics.estimate(rows, metric).value for metric in COLUMNS}
        figures[name] = {key: round(value, 4) for key, value in found.items() if not math.isnan(value)}
    for name, audit in audits.items():
        shares: Sequence[tuple[str, float | None]] = [(each.name, each.share) for each in audit.components]
        figures[f"{name}_shares"] = {component: round(share, 4) for component, share in shares if share}
    return figures


if __name__ == "__main__":
    main()
