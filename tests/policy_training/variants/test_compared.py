"""The variants that the benchmarks compare: each differs from all others, and what both share is the same in both."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from regrade.policy_training.trainers.settings import OnlineSettings

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.mark.parametrize("size", ["FULL", "SHORT", "QUICK"])
def test_each_variant_differs_and_both_benchmarks_share_the_recipe(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _variants
    import what_rewards_teach
    import what_stability_costs

    settings = getattr(_variants, size)
    rewards = what_rewards_teach.variants_of(settings, is_plain=False)
    stability = what_stability_costs.variants_of(settings)
    assert set(rewards) & set(stability) == {_variants.START, _variants.GRPO}
    for name in set(rewards) & set(stability):
        assert rewards[name].to_json() == stability[name].to_json()
    for one, other in combinations([*stability.values(), *list(rewards.values())[2:]], 2):
        assert one.to_json() != other.to_json(), f"{one.name} and {other.name}"
    plain = what_rewards_teach.variants_of(settings, is_plain=True)
    assert set(plain) & set(stability) == {_variants.START}

    def steps_between_generations(name: str) -> int:
        chosen = stability[name].settings
        assert isinstance(chosen, OnlineSettings)
        return chosen.steps_per_generation * chosen.num_iterations

    names = ("grpo", "iterations-2", "iterations-4")
    assert len({steps_between_generations(name) for name in names}) == 1
    assert steps_between_generations("stale") <= settings.grpo_steps or size == "QUICK"
