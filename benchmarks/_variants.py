"""What the benchmarks of variants have in common: the sizes, the start and its controls, the command line.

Both work on one folder, and what they share (the starts, SFT, plain GRPO) is trained once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from regrade.datasets.plurals import counted
from regrade.datasets.rollouts import Sampling
from regrade.evaluators.analysis.sample_size import Spread, smallest_effect
from regrade.policy_training.policies.models import EMBEDDED
from regrade.policy_training.recipe.settings import Recipe
from regrade.policy_training.trainers.settings import OnlineSettings
from regrade.policy_training.variants.settings import (
    Variant,
    VariantSettings,
    jobs_of,
)
from regrade.reports.number_format import percent
from regrade.reports.variant_results import VariantResult, load_variants
from regrade.reports.variant_tables import markdown_table, missing_note

RECIPE = Recipe()
FULL = VariantSettings(
    check_every=20,
    rounds=1,
    expert_iteration=replace(RECIPE.expert_iteration, sampling=Sampling(temperature=1.0, samples=6)),
)
"""The recipe, with one smaller round. With 0.3 seconds an attempt on one core, sampled and executed, a start takes a
quarter of an hour, and a variant seven minutes."""
SHORT = replace(
    FULL,
    validation=24,
    held_out=100,
    held_out_samples=3,
    sft_steps=60,
    tests_only=100,
    expert_iteration=replace(FULL.expert_iteration, sampling=replace(FULL.expert_iteration.sampling, samples=4)),
    round_steps=40,
    surveyed=120,
    least_tasks=32,
    grpo=replace(FULL.grpo, steps_per_generation=8),
    grpo_steps=16,
)
"""Half of all: a start takes ten minutes, and a variant four to five."""
QUICK = replace(
    FULL,
    max_prompt_tokens=90,
    repositories=2,
    validation=4,
    held_out=6,
    demonstrations=4,
    tests_only=8,
    surveyed=12,
    survey_samples=2,
    least_tasks=8,
    sft_steps=3,
    check_every=3,
    round_steps=2,
    expert_iteration=replace(FULL.expert_iteration, sampling=replace(FULL.expert_iteration.sampling, samples=2)),
    grpo=replace(FULL.grpo, prompts_per_step=2, samples_per_prompt=4, steps_per_generation=4),
    grpo_steps=4,
    held_out_samples=2,
)
"""Every part for real; its figures are noise."""

SFT, START, MORE_SFT, GRPO = "sft", "start", "more-sft", "grpo"
"""Names of the variants that both benchmarks have."""


def grpo_of(settings: VariantSettings) -> OnlineSettings:
    """The recipe's GRPO, of single answers: they have no steps to tell apart."""
    return replace(settings.grpo, credit="trajectory")


def shared_variants(settings: VariantSettings) -> list[Variant]:
    """The two starts, SFT given equal time, and GRPO as in the recipe."""
    more = settings.expert_iteration.sft
    return [
        Variant(name=SFT, label="SFT", start="sft"),
        Variant(name=START, label="SFT + expert iteration: the start"),
        Variant(name=MORE_SFT, label="SFT given equal time", settings=more, start="sft", as_long_as=GRPO),
        Variant(name=GRPO, label="GRPO as the recipe, tests alone", settings=grpo_of(settings)),
    ]


def parser_of(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; a killed run goes on in it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="only these, and what they need; see --list")
    parser.add_argument("--report", action="store_true", help="write the tables of what is done, and train nothing")
    parser.add_argument("--list", action="store_true", help="print the variants, what is done and for how long it ran")
    parser.add_argument("--plan", action="store_true", help="print what differences the sizes can detect")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--short", action="store_true", help="half the sizes, in a folder of its own")
    sizes.add_argument("--quick", action="store_true", help="tiny sizes, to try every part")
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--keep-checkpoints", action="store_true", help="of the variants too, half a gigabyte each")
    parser.add_argument("--steps", type=int, help=f"optimizer steps of each training (default {FULL.grpo_steps})")
    parser.add_argument("--held-out", type=int, help=f"tasks of the verdict (default {FULL.held_out})")
    parser.add_argument("--attempts", type=int, help=f"attempts per held-out task (default {FULL.held_out_samples})")
    parser.add_argument(
        "--surveyed", type=int, help=f"tasks to choose those of training from (default {FULL.surveyed})"
    )
    parser.add_argument("--tests-only", type=int, help=f"tasks of expert iteration (default {FULL.tests_only})")
    parser.add_argument("--max-prompt-tokens", type=int, help=f"(default {FULL.max_prompt_tokens})")
    parser.add_argument("--sandbox", default="auto")
    return parser


def sizes_of(arguments: argparse.Namespace) -> VariantSettings:
    given: dict[str, Any] = {
        "grpo_steps": arguments.steps,
        "held_out": arguments.held_out,
        "held_out_samples": arguments.attempts,
        "surveyed": arguments.surveyed,
        "tests_only": arguments.tests_only,
        "max_prompt_tokens": arguments.max_prompt_tokens,
    }
    base = QUICK if arguments.quick else SHORT if arguments.short else FULL
    return replace(base, **{key: value for key, value in given.items() if value is not None})


def trained_and_loaded(
    arguments: argparse.Namespace, settings: VariantSettings, variants: Mapping[str, Variant]
) -> dict[str, VariantResult] | None:
    """Do what the command line says, and return what is stored; None if it only asked for a list."""
    unknown = sorted(set(arguments.variants or ()) - set(variants))
    if unknown:
        raise SystemExit(f"there is no variant {unknown[0]!r}; the variants are {', '.join(variants)}")
    names = arguments.variants or list(variants)
    if arguments.list:
        print(listed(arguments.out, variants, names, arguments.seeds))
    if arguments.plan:
        print(detectable_table(settings, len(arguments.seeds)))
    if arguments.list or arguments.plan:
        return None
    if not arguments.report:
        from regrade.policy_training.variants.running import run_variants

        run_variants(
            arguments.out, variants, names, arguments.seeds, settings, stage, model=arguments.model,
            sandbox=arguments.sandbox, keeps_checkpoints=arguments.keep_checkpoints,
            after_job=lambda job: print(f"done: {job.variant or 'start'}, seed {job.seed}", flush=True),
        )  # fmt: skip
    results = load_variants(arguments.out, {name: variants[name] for name in names}, arguments.seeds)
    if not results:
        print(f"{arguments.out}: no variant is judged yet; see --list")
    return results


@contextmanager
def stage(title: str) -> Iterator[Any]:
    print(f"... {title}", flush=True)
    yield lambda _done, _total: None


def written(out: Path, name: str, parts: Sequence[str]) -> None:
    """Print the report, and write it into the folder of the runs."""
    text = "\n\n".join(part for part in parts if part) + "\n"
    (out / name).write_text(text)
    print(text)
    print(f"written to {out / name}")


def report_note(results: Mapping[str, VariantResult], names: Sequence[str], seeds: Sequence[int]) -> str:
    """How many tasks and attempts the figures are of, and what is missing."""
    rows = next(iter(results.values())).rows
    tasks, attempts = rows["task"].nunique(), rows.groupby(["task", "seed"]).size().max()
    sizes = f"{counted(tasks, 'held-out task')} x {attempts} attempts with each seed, at temperature "
    sizes += f"{rows['temperature'].iloc[0]:g}. Brackets: 95 % intervals; per cent, and points for differences."
    return " ".join([sizes, missing_note(results, names, seeds)]).strip()


def listed(out: Path, variants: Mapping[str, Variant], names: Sequence[str], seeds: Sequence[int]) -> str:
    """The jobs, which of them are done, and the wall time of their phases."""
    from regrade.evaluators.storage.run import Run

    rows = []
    for job in jobs_of(variants, names, seeds):
        folder = job.folder(out)
        phases = Run.open(folder).manifest.phases if (folder / "manifest.json").exists() else {}
        spent = ", ".join(f"{name} {phase.seconds:.0f} s" for name, phase in phases.items())
        label = variants[job.variant].label if job.variant else "the start: SFT, expert iteration, survey"
        rows.append([job.variant or "–", str(job.seed), label, "done" if job.is_done(out) else "", spent])
    return markdown_table(["name", "seed", "variant", "", "wall time"], rows)


RATES = (0.05, 0.1, 0.15)
AGREEMENT = (0.4, 0.6)
"""Correlation of two attempts at a task, by one policy; the attempts of two policies agree somewhat less."""
LOSS = 0.9
"""Of this correlation, what is left between two policies of one start."""


def detectable_table(settings: VariantSettings, seeds: int) -> str:
    """The smallest true difference of two variants that 80 % of comparisons detect, in points (see `sample_size`).

    For single attempts, with rate p of the outcome and correlation r of two attempts at a task, those of two policies
    differ at 2 p (1 - p) (1 - 0.9 r) of the tasks, of which 2 p (1 - p) (1 - r) by chance. Runs are taken as equal
    beyond chance; a deviation of 1 point between trainings is the last column.
    """
    rows = []
    for rate in RATES:
        for agreement in AGREEMENT:
            cells = []
            for tasks, between in ((100, 0.0), (settings.held_out, 0.0), (settings.held_out, 0.01)):
                spread = Spread(
                    discordance=2 * rate * (1 - rate) * (1 - LOSS * agreement),
                    by_chance=2 * rate * (1 - rate) * (1 - agreement),
                    design_effect=1.1,
                    between_runs=between,
                )
                effect = smallest_effect(spread, tasks, attempts=settings.held_out_samples, runs=seeds)
                cells.append("–" if effect is None else f"{100 * effect:.1f}")
            rows.append([percent(rate, 0), f"{agreement:g}", *cells])
    head = ["rate", "correlation at a task", "100 tasks", f"{settings.held_out} tasks"]
    shown = f"{settings.held_out_samples} attempts a task with each of {counted(seeds, 'seed')}; in points:"
    return f"{shown}\n\n" + markdown_table([*head, f"{settings.held_out} tasks, trainings differ by 1"], rows)
