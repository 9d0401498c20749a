"""The variants that the benchmarks compare: each differs from all others, and what both share is the same in both."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from regrade.policy_training.trainers.settings import OnlineSettings

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.mark.parametrize("size", ["FULL", "SHORT", "QUICK"])
def test_each_variant_differs_and_all_benchmarks_share_the_recipe(
    size: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "reward_model.json").write_text('{"format": 1, "kind": "static", "digest": "0", "details": {}}')
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _variants
    import what_a_model_spares
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

    spared = what_a_model_spares.variants_of(settings, tmp_path)
    assert set(spared) & set(stability) == {_variants.START, _variants.GRPO}
    for name in (_variants.START, _variants.GRPO):
        assert spared[name].to_json() == stability[name].to_json()
    assert len({str(one.to_json()) for one in spared.values()}) == len(spared)

    names = ("grpo", "iterations-2", "iterations-4")
    assert len({steps_between_generations(name) for name in names}) == 1
    assert steps_between_generations("stale") <= settings.grpo_steps or size == "QUICK"
