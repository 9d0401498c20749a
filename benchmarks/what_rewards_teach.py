"""What does each criterion of a reward cost, and what does it buy? One start, trained with four rewards.

After the same SFT and a round of expert iteration, GRPO trains with (a) the tests alone, (b) tests and impact, (c)
tests and quality behind the gate `resolved`, (d) the same quality without the gate. Everything else is the same, seed
by seed. Each policy is judged on held-out packages: clean fixes, breakage, lint and complexity, each with its interval,
and the paired difference from the tests alone. The last table says what drove the learning: the share of each component
in the variance within groups, and in how many of them it decides.

    python benchmarks/what_rewards_teach.py --out runs/variants             # an hour of two cores, two processes:
    for i in 1 2; do OMP_NUM_THREADS=1 python benchmarks/what_rewards_teach.py --out runs/variants & done; wait
    python benchmarks/what_rewards_teach.py --out runs/short --short        # half the sizes: half an hour
    python benchmarks/what_rewards_teach.py --out runs/variants --report    # the tables of what is done
    python benchmarks/what_rewards_teach.py --out runs/variants --list      # what is done, and how long it took
    python benchmarks/what_rewards_teach.py --out runs/quick --quick        # every part; the figures are noise
    python benchmarks/what_rewards_teach.py --out runs/plain --plain        # without prices of breakage etc.

A killed run goes on where it stopped. `what_stability_costs.py` goes on in the same folder, from the same starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

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

from regrade.evaluators.analysis import metrics, side_metrics
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
from regrade.policy_training.variants.settings import Variant, VariantSettings, named
from regrade.reports.variant_results import VariantResult
from regrade.reports.variant_tables import components_table, differences_table, held_out_table, trainings_table
from regrade.rewards import complexity, impact, resolved, small_diff, style, tests
from regrade.rewards.algebra import Reward

quality = (0.4 * style.otherwise(1.0) + 0.4 * complexity.otherwise(1.0) + 0.2 * small_diff.otherwise(1.0)).named(
    "quality"
)
REWARDS: Mapping[str, tuple[str, Reward]] = {
    "impact": ("tests and impact", 0.7 * tests + 0.3 * impact.otherwise(1.0)),
    "gated": ("quality behind `resolved`", 0.7 * tests + 0.3 * quality.only_if(resolved)),
    "ungated": ("quality without the gate", 0.7 * tests + 0.3 * quality),
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


def variants_of(settings: VariantSettings, *, is_plain: bool) -> Mapping[str, Variant]:
    """The start, and GRPO with each reward: the first one is that of all other benchmarks of variants."""

    def paid(reward: Reward) -> TrainingReward:
        return TrainingReward(reward=reward) if is_plain else replace(DEFAULT_TRAINING_REWARD, reward=reward)

    start, base = (one for one in shared_variants(settings) if one.name in (START, GRPO))
    if is_plain:
        base = replace(base, name="plain-tests", label="tests alone", reward=paid(tests))
    prefix = "plain-" if is_plain else ""
    others = [
        Variant(name=f"{prefix}{name}", label=label, settings=grpo_of(settings), reward=paid(reward))
        for name, (label, reward) in REWARDS.items()
    ]
    return named([start, replace(base, label="tests alone"), *others])


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--plain", action="store_true", help="pay the reward alone, without prices of breakage etc.")
    arguments = parser.parse_args()
    settings = sizes_of(arguments)
    variants = variants_of(settings, is_plain=arguments.plain)
    results = trained_and_loaded(arguments, settings, variants)
    if not results:
        return
    base = next(name for name in variants if name != START)
    parts = [
        report_note(results, arguments.variants or list(variants), arguments.seeds),
        held_out_table(results, COLUMNS),
    ]
    parts += [differences_table(results, base, COLUMNS)] if base in results else []
    parts += [trainings_table(results), components_table(results)]
    written(arguments.out, "what-rewards-teach.md", parts)
    if not arguments.quick:
        record_figures("what_rewards_teach", figures_of(results))


def figures_of(results: Mapping[str, VariantResult]) -> dict[str, dict[str, float]]:
    """For `latest.json`."""
    figures = {}
    for name, result in results.items():
        found = {metric.name: metrics.estimate(result.rows, metric).value for metric in COLUMNS}
        figures[name] = {key: round(value, 4) for key, value in found.items() if not math.isnan(value)}
    return figures


if __name__ == "__main__":
    main()
