"""What does a reward model spare in training, and what does it cost? GRPO with all executions, and with a cascade.

From one start, GRPO trains as the recipe does; with a cascade of tests alone; with a cascade in which a reward model
answers for attempts that surely fix nothing; and paid by that model alone, which shows what a policy makes of a model
that nobody checks. Everything else is the same, seed by seed. Each policy is judged on held-out packages by whole test
suites. The model must not have seen those packages:

    regrade reward-model attempts --out runs/attempts
    regrade reward-model train runs/attempts --out runs/static
    export OMP_NUM_THREADS=1
    for i in 1 2; do python benchmarks/what_a_model_spares.py --judge runs/static --out runs/variants & done; wait
    python benchmarks/what_a_model_spares.py --judge runs/static --out runs/short --short      # half the sizes
    python benchmarks/what_a_model_spares.py --judge runs/static --out runs/variants --report  # tables of what is done

A killed run goes on where it stopped. `what_rewards_teach.py` and `what_stability_costs.py` go on in the same folder,
from the same starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from _latest import record as record_figures
from _variants import (
    GRPO,
    START,
    grpo_of,
    parser_of,
    report_note,
    shared_variants,
    sizes_of,
    trained_and_loaded,
    written,
)

from regrade.evaluators.analysis import metrics
from regrade.policy_training.cascade.settings import CascadeSettings
from regrade.policy_training.variants.settings import Variant, VariantSettings, named
from regrade.reports.number_format import number, percent
from regrade.reports.variant_results import VariantResult, VariantTraining
from regrade.reports.variant_tables import differences_table, executions_table, held_out_table, markdown_table

COLUMNS = (metrics.FIX_AND_CLEAN, metrics.BREAKAGE_INCIDENCE, metrics.NO_OP_RATE)
CHARGE = 1.2
"""The most that a stop may be off, of the default training reward: that between no change and total breakage."""
SEVERITY = 0.02
"""Of an attempt that breaks something, the share of tests that it is charged to break: about that of executed ones."""
ALONE = "model-alone"


def variants_of(settings: VariantSettings, model: Path) -> Mapping[str, Variant]:
    base = grpo_of(settings)
    tests = CascadeSettings(charge=CHARGE, severity=SEVERITY)
    failures = CascadeSettings(charge=CHARGE, severity=SEVERITY, model=model, model_answers="failures")
    alone = CascadeSettings(charge=CHARGE, severity=SEVERITY, model=model, model_answers="all")
    chosen = [one for one in shared_variants(settings) if one.name in (START, GRPO)]
    return named(
        [
            *chosen,
            Variant(name="cascade-tests", label="cascade of tests", settings=base, cascade=tests),
            Variant(name="cascade-model", label="cascade with the model", settings=base, cascade=failures),
            Variant(name=ALONE, label="the model alone pays", settings=base, cascade=alone),
        ]
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--judge", type=Path, required=True, help="folder of the reward model")
    arguments = parser.parse_args()
    settings = sizes_of(arguments)
    results = trained_and_loaded(arguments, settings, variants_of(settings, arguments.judge))
    if not results:
        return
    parts = [
        report_note(results, arguments.variants or list(variants_of(settings, arguments.judge)), arguments.seeds),
        held_out_table(results, COLUMNS),
    ]
    parts += [differences_table(results, GRPO, COLUMNS)] if GRPO in results else []
    parts += [executions_table(results)]
    parts += [over_optimisation_table(results[ALONE])] if ALONE in results else []
    written(arguments.out, "what-a-model-spares.md", parts)
    if not arguments.quick:
        record_figures("what_a_model_spares", figures_of(results))


def over_optimisation_table(result: VariantResult) -> str:
    """What the model pays beside what the execution of the same audits pays, as the policy leaves its start."""
    rows = [row for seed, training in sorted(result.trainings.items()) for row in _steps(seed, training)]
    head = ["seed", "step", "KL, nats per token", "the model pays", "the execution pays", "overpaid [95 %]"]
    return markdown_table([*head, "verified", "the model is asked no more"], rows)


def _steps(seed: int, training: VariantTraining) -> Iterator[list[str]]:
    divergence = math.nan
    for step in training.steps:
        divergence = float(step.get("kl", divergence))
        if "cascade/model_pays" not in step and not step.get("cascade/model_fell_back"):
            continue
        interval = [step.get(f"cascade/overpaid{end}", math.nan) for end in ("", "_low", "_high")]
        value, low, high = (number(each, 2) for each in interval)
        yield [
            str(seed),
            str(step["step"]),
            number(divergence, 2),
            number(step.get("cascade/model_pays", math.nan), 2),
            number(step.get("cascade/execution_pays", math.nan), 2),
            f"{value} [{low}, {high}]",
            percent(step.get("fix_and_clean"), 0),
            "yes" if step.get("cascade/model_fell_back") else "",
        ]


def figures_of(results: Mapping[str, VariantResult]) -> dict[str, dict[str, float]]:
    """For `latest.json`."""
    figures: dict[str, dict[str, float]] = {}
    for name, result in results.items():
        found = {metric.name: metrics.estimate(result.rows, metric).value for metric in COLUMNS}
        for seed, training in result.trainings.items():
            found[f"seconds_{seed}"] = training.seconds
            found[f"executed_{seed}"] = training.total("executed_patches")
        figures[name] = {key: round(value, 4) for key, value in found.items() if not math.isnan(value)}
    return figures


if __name__ == "__main__":
    main()
