"""What does stability cost, and what does it buy? One start, trained in many ways, each judged on held-out packages.

After the same SFT and a round of expert iteration, one thing is changed at a time from GRPO as the recipe trains it:
how old attempts may become, how often they are learned from, the clip range, the KL divergence's price, the algorithm,
the gate on the outcome, a held-out probe. The guard is on in all of them. Beside them stand SFT, the start, and SFT
given equal time.

    python benchmarks/what_stability_costs.py --out runs/variants            # some two and a half hours of two cores:
    for i in 1 2; do OMP_NUM_THREADS=1 python benchmarks/what_stability_costs.py --out runs/variants & done; wait
    python benchmarks/what_stability_costs.py --out runs/short --short       # half the sizes, 12 variants: 75 minutes
    python benchmarks/what_stability_costs.py --out runs/variants --report   # the tables of what is done
    python benchmarks/what_stability_costs.py --out runs/variants --list     # what is done, and how long it took
    python benchmarks/what_stability_costs.py --out runs/variants --plan     # which differences the sizes can detect
    python benchmarks/what_stability_costs.py --out runs/quick --quick       # every part; the figures are noise

A killed run goes on where it stopped. `what_rewards_teach.py` goes on in the same folder, from the same starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from _latest import record as record_figures
from _variants import (
    GRPO,
    MORE_SFT,
    SFT,
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
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD
from regrade.policy_training.trainers.settings import OnlineSettings, PPOSettings, StabilitySettings
from regrade.policy_training.variants.settings import Variant, VariantSettings, named
from regrade.reports.variant_results import VariantResult
from regrade.reports.variant_tables import differences_table, held_out_table, trainings_table
from regrade.rewards import builds, default, tests, untampered
from regrade.rewards.builtin import quality

COLUMNS = (metrics.FIX_AND_CLEAN, metrics.BREAKAGE_INCIDENCE, metrics.NO_OP_RATE)
SHORT_NAMES = (
    SFT, START, MORE_SFT, GRPO, "fresh", "iterations-2", "clip-none", "kl-0.1", "rloo", "reinforce", "ppo",
    "ppo-shared",
)  # fmt: skip
"""What --short runs, if --variants is not given."""
UNCLIPPED = {"epsilon": 0.999, "epsilon_high": 1e6}
ungated = (0.7 * tests + 0.3 * quality).only_if(builds, untampered).named("ungated")
"""The reward `default`, whose quality also counts without a fix."""


def variants_of(settings: VariantSettings) -> Mapping[str, Variant]:
    """All that are compared, GRPO as the recipe first after the starts."""
    base, steps = grpo_of(settings), settings.grpo.steps_per_generation
    half, quarter = max(1, steps // 2), max(1, steps // 4)

    def grpo(name: str, label: str, **changes: Any) -> Variant:
        return Variant(name=name, label=label, settings=replace(base, **changes))

    return named(
        [
            *shared_variants(settings),
            grpo("fresh", "1 step per generation: no attempt is old", steps_per_generation=1),
            grpo("stale", f"{2 * steps} steps per generation: older attempts", steps_per_generation=2 * steps),
            grpo("iterations-2", "each attempt twice", steps_per_generation=half, num_iterations=2),
            grpo("iterations-4", "each attempt four times", steps_per_generation=quarter, num_iterations=4),
            grpo("clip-0.1", "clip 0.1", epsilon=0.1),
            grpo("clip-high", "clip 0.2, above 0.28 (DAPO)", epsilon_high=0.28),
            grpo("clip-none", "no clip", **UNCLIPPED),
            grpo("kl-0.02", "KL 0.02", beta=0.02),
            grpo("kl-0.1", "KL 0.1", beta=0.1),
            *algorithms_of(base),
            *outcome_gates_of(base),
            replace(
                grpo("probe", "GRPO with a held-out probe"),
                stability=StabilitySettings(probe_every=max(1, settings.grpo_steps // 3)),
                probed=min(16, settings.validation),
            ),
        ]
    )


def algorithms_of(base: OnlineSettings) -> list[Variant]:
    """The other algorithms, with what they share with the recipe's GRPO; they have no groups, or no old attempts."""
    shared = {
        "learning_rate": base.learning_rate,
        "prompts_per_step": base.prompts_per_step,
        "samples_per_prompt": base.samples_per_prompt,
        "frozen": base.frozen,
    }
    rloo = OnlineSettings(algorithm="rloo", steps_per_generation=base.steps_per_generation, **shared)
    reinforce = OnlineSettings(algorithm="reinforce", **shared)
    ppo = PPOSettings(
        learning_rate=base.learning_rate,
        prompts_per_step=2 * base.prompts_per_step * base.samples_per_prompt,
        frozen=base.frozen,
    )
    shared_ppo = replace(ppo, prompts_per_step=2 * base.prompts_per_step, samples_per_prompt=base.samples_per_prompt)
    return [
        Variant(name="rloo", label="RLOO", settings=rloo),
        Variant(name="reinforce", label="REINFORCE", settings=reinforce),
        Variant(name="ppo", label="PPO, each attempt at another task", settings=ppo),
        Variant(name="ppo-shared", label="PPO, tasks shared as in GRPO", settings=shared_ppo),
    ]


def outcome_gates_of(base: OnlineSettings) -> list[Variant]:
    """The reward `default`, with its gate on the outcome and without it."""
    return [
        Variant(name=name, label=label, settings=base, reward=replace(DEFAULT_TRAINING_REWARD, reward=reward))
        for name, label, reward in (
            ("default", "reward `default`", default),
            ("default-ungated", "reward `default`, quality without a fix too", ungated),
        )
    ]


def main() -> None:
    arguments = parser_of(__doc__).parse_args()
    settings = sizes_of(arguments)
    variants = variants_of(settings)
    if arguments.short and not arguments.variants:
        arguments.variants = list(SHORT_NAMES)
    results = trained_and_loaded(arguments, settings, variants)
    if not results:
        return
    parts = [
        report_note(results, arguments.variants or list(variants), arguments.seeds),
        held_out_table(results, COLUMNS),
    ]
    parts += [differences_table(results, GRPO, COLUMNS)] if GRPO in results else []
    parts += [trainings_table(results)]
    written(arguments.out, "what-stability-costs.md", parts)
    if not arguments.quick:
        record_figures("what_stability_costs", figures_of(results))


def figures_of(results: Mapping[str, VariantResult]) -> dict[str, dict[str, float]]:
    """For `latest.json`."""
    figures: dict[str, dict[str, float]] = {}
    for name, result in results.items():
        found = {metric.name: metrics.estimate(result.rows, metric).value for metric in COLUMNS}
        for seed, training in result.trainings.items():
            found[f"seconds_{seed}"], found[f"alarms_{seed}"] = training.seconds, float(training.alarms.total())
        figures[name] = {key: round(value, 4) for key, value in found.items() if not math.isnan(value)}
    return figures


if __name__ == "__main__":
    main()
