"""Variants of a tiny model's training: stopped, they go on; the tables have what each did and what its guard saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Sampling
from regrade.evaluators.analysis.metrics import BREAKAGE_INCIDENCE, FIX_AND_CLEAN
from regrade.evaluators.storage.run import Run
from regrade.policy_training.trainers.settings import OnlineSettings, PPOSettings, SFTSettings, StabilitySettings
from regrade.policy_training.variants.running import run_variants
from regrade.policy_training.variants.settings import Variant, VariantSettings, named, start_folder, variant_folder
from regrade.reports.variant_results import load_variants
from regrade.reports.variant_tables import (
    components_table,
    differences_table,
    held_out_table,
    missing_note,
    trainings_table,
)

GRPO = OnlineSettings(
    algorithm="grpo", learning_rate=1e-3, prompts_per_step=2, samples_per_prompt=4, steps_per_generation=2
)
SIZES = VariantSettings(
    demonstrations=3, tests_only=3, surveyed=5, survey_samples=2, least_tasks=4, max_prompt_tokens=420, repositories=1,
    validation=4, held_out=4, sft_steps=2, check_every=2, rounds=1, round_steps=1, grpo=GRPO, grpo_steps=4,
    expert_iteration=replace(VariantSettings().expert_iteration, sampling=Sampling(0.8, 2)), held_out_samples=2,
)  # fmt: skip
UNSTABLE = StabilitySettings(max_clip_share=0.0, patience=1, max_rollbacks=0)
VARIANTS = named(
    [
        Variant(name="start", label="the start"),
        Variant(name="more-sft", label="SFT given equal time", settings=SFTSettings(), start="sft", as_long_as="grpo"),
        Variant(name="grpo", label="GRPO", settings=GRPO),
        Variant(name="tight", label="a tight clip", settings=replace(GRPO, epsilon=1e-9), stability=UNSTABLE),
        Variant(name="ppo", label="PPO", settings=PPOSettings(prompts_per_step=4, frozen=0.5)),
    ]
)


class Stopped(Exception):
    pass


def run(
    out: Path,
    model: Path,
    *names: str,
    stopped_at: str = "",
    sizes: VariantSettings = SIZES,
    variants: Mapping[str, Variant] = VARIANTS,
) -> list[str]:
    """The titles of the stages that were entered; the run is stopped in one of them."""
    titles: list[str] = []

    @contextmanager
    def stage(title: str) -> Iterator[Callable[[int, int], None]]:
        titles.append(title)
        if title == stopped_at:
            raise Stopped
        yield lambda _done, _total: None

    try:
        run_variants(out, variants, names or list(variants), [0], sizes, stage, model=str(model))
    except Stopped:
        assert stopped_at
    return titles


@pytest.mark.slow
def test_variants_start_alike_and_their_tables_say_what_each_did(
    undecided_folder: Path, tmp_path: Path, packages_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRADE_CACHE", str(packages_cache))
    first = run(tmp_path, undecided_folder, "start", "grpo", stopped_at="grpo, seed 0: judging")
    assert [title.partition(": ")[2] for title in first if title.startswith("start, seed 0")] == [
        *("SFT", "expert iteration, round 1", "survey", "judging")
    ]
    assert list(load_variants(tmp_path, VARIANTS)) == ["start"], "a variant that is not judged yet is in no table"
    before = Run.open(start_folder(tmp_path, 0)).manifest.phases

    second = run(tmp_path, undecided_folder)
    assert "start, seed 0: survey" not in second
    assert second[1] == "grpo, seed 0: judging", "its training was done"
    assert "grpo, seed 0: grpo" not in second
    assert Run.open(start_folder(tmp_path, 0)).manifest.phases == before
    assert run(tmp_path, undecided_folder) == []
    assert not list((tmp_path / "variants").rglob("checkpoints/*")), "half a gigabyte each"

    results = load_variants(tmp_path, VARIANTS)
    assert list(results) == list(VARIANTS)
    assert {len(result.rows) for result in results.values()} == {SIZES.held_out * SIZES.held_out_samples}
    grpo, tight = results["grpo"].trainings[0], results["tight"].trainings[0]
    assert (grpo.taken, grpo.attempts, grpo.is_given_up) == (4, 2 * 2 * 2 * 4, False)
    assert (tight.alarms, tight.is_given_up) == ({"clipping": 1}, True)
    assert results["ppo"].trainings[0].attempts == 4
    assert results["start"].trainings == {}
    assert grpo.tokens_per_second > 0
    assert 0 < grpo.waiting_share < 1
    control = Run.open(variant_folder(tmp_path, "more-sft", 0) / "training").manifest
    timed = Run.open(variant_folder(tmp_path, "grpo", 0)).manifest.phases["train"].seconds
    assert control.configuration["budget"]["seconds"] == pytest.approx(
        timed + before["expert iteration"].seconds + before["survey"].seconds
    )

    metrics = (FIX_AND_CLEAN, BREAKAGE_INCIDENCE)
    assert held_out_table(results, metrics).count("\n") == 1 + len(VARIANTS)
    lines = differences_table(results, "grpo", metrics).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        *("| the start", "| SFT given equal time", "| a tight clip", "| PPO")
    ]
    trained = trainings_table(results)
    assert "1 clipping, 1 given up" in trained
    assert "the start" not in trained
    assert "| GRPO | `tests` |" in components_table(results) or "price(" in components_table(results)
    assert missing_note(results, VARIANTS, [0, 1]).startswith("Not done yet: start (seed 1), more-sft (seed 1)")

    with pytest.raises(UserError, match=r"holds a run with other settings: sizes\.grpo_steps was 4 and is now 5"):
        run(tmp_path, undecided_folder, sizes=replace(SIZES, grpo_steps=5))
    faster = VARIANTS | {"grpo": replace(VARIANTS["grpo"], settings=replace(GRPO, learning_rate=2e-3))}
    with pytest.raises(UserError, match=r"variant\.settings\.learning_rate was 0\.001 and is now 0\.002"):
        run(tmp_path, undecided_folder, variants=faster)
