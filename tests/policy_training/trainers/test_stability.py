"""The stability guard: induced failures in real trainings of a tiny model, and none in healthy ones."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from regrade.datasets.errors import UnstableTrainingError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.training_reward import TrainingReward
from regrade.policy_training.policies.models import LanguageModel, load_model
from regrade.policy_training.policies.transcripts import Transcript
from regrade.policy_training.trainers import stability
from regrade.policy_training.trainers.alarms import StepJudge
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.online import train_online
from regrade.policy_training.trainers.ppo import train_ppo
from regrade.policy_training.trainers.probes import ProbeResult, executed_probe
from regrade.policy_training.trainers.settings import OnlineSettings, PPOSettings, SFTSettings, StabilitySettings
from regrade.policy_training.trainers.sft import demonstrations, train_sft
from regrade.policy_training.trainers.stability import StabilityGuard
from regrade.rewards import PatchText, Score, reward
from tests.policy_training.conftest import untrained


def weights_of(language_model: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in language_model.model.named_parameters()}


class Rows:
    """A training log."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def __call__(self, step: int, _seconds: float, numbers: Mapping[str, float]) -> None:
        self.rows.append({"step": step, **numbers})


def test_a_batch_that_is_not_finite_is_left_out(
    undecided: LanguageModel, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights after two steps are those of one, and the training goes on."""
    told: list[str] = []
    guard, rows = StabilityGuard(StabilitySettings(), tmp_path, tell=told.append), Rows()
    seen: list[dict[str, torch.Tensor]] = []
    compute = stability.GuardedSteps.training_step

    def poisoned(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = compute(self, *args, **kwargs)
        seen.append(weights_of(undecided))
        if self.state.global_step == 1:
            self.step_loss = math.nan
            for weight in self.model.parameters():
                if weight.grad is not None:
                    weight.grad.fill_(math.nan)
        return loss

    monkeypatch.setattr(stability.GuardedSteps, "training_step", poisoned)
    examples = demonstrations(tasks)
    train_sft(
        undecided, examples, SFTSettings(learning_rate=1e-3), out=tmp_path, budget=Budget(steps=4), seed=0,
        log=rows, guard=guard,
    )  # fmt: skip
    assert [(step, alarm.kind, alarm.reaction) for step, alarm in guard.alarms] == [(2, "non-finite", "skip")]
    changed = [any(not torch.equal(a[name], b[name]) for name in a) for a, b in itertools.pairwise(seen)]
    assert changed == [True, False, True], "the second step changed nothing"
    assert all(torch.isfinite(weight).all() for weight in undecided.model.parameters())
    assert rows.rows[1]["alarms"] == 1
    assert told == [
        f"stability: step 2: the loss is not finite (nan); the step was left out (see {tmp_path}/alarms/step-2)"
    ]
    record = json.loads((tmp_path / "alarms" / "step-2" / "alarm.json").read_text())
    assert record["kind"] == "non-finite"
    assert [step["step"] for step in record["steps"]] == [1, 2]


@pytest.mark.parametrize("scores", [None, (0.0, 0.0)])
def test_weights_that_the_last_step_ruined_are_not_kept(
    undecided: LanguageModel, tasks: list[Task], tmp_path: Path, scores: tuple[float, ...] | None
) -> None:
    """Neither without a probe, nor where it cannot tell them from the first ones."""
    told: list[str] = []
    results = None if scores is None else iter([ProbeResult({"a": score}) for score in scores])
    probe = None if results is None else (lambda: next(results))
    guard = StabilityGuard(StabilitySettings(probe_every=1, checkpoint_every=1), tmp_path, probe, tell=told.append)
    before = weights_of(undecided)
    train_sft(
        undecided, demonstrations(tasks), SFTSettings(learning_rate=1e300), out=tmp_path, budget=Budget(steps=1),
        seed=0, guard=guard,
    )  # fmt: skip
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(undecided).items())
    assert told == ["stability: the last weights are not finite; those of step 0 are kept"]


def test_a_guard_goes_on_with_what_it_knew(language_model: LanguageModel, tmp_path: Path) -> None:
    """After a kill: its memory survives as a file of plain values and tensors. The best weights are those of step 2."""
    lessons = [Transcript.of_answer(f"Write {k}:\n", f"9 {k}") for k in range(8)]
    results = iter([ProbeResult({"a": value}, {"probe/breakage": 0.0}) for value in (0.5, 0.9, 0.7)])
    settings, log = StabilitySettings(probe_every=2), Rows()
    guard = StabilityGuard(settings, tmp_path, lambda: next(results), tell=lambda _line: None, log=log)
    train_sft(
        language_model, lessons, SFTSettings(learning_rate=1e-2), out=tmp_path, budget=Budget(steps=3), seed=0,
        guard=guard, log=log,
    )  # fmt: skip
    assert [row.get("probe/score") for row in log.rows] == [0.5, None, 0.9, 0.7]
    kept = weights_of(language_model)
    torch.save(guard.state_dict(), tmp_path / "guard.pt")
    again = StabilityGuard(settings, tmp_path, guard.probe)
    again.watch(guard.trainer, is_online=False)
    again.load_state_dict(torch.load(tmp_path / "guard.pt", weights_only=True))
    assert (again.start.step, again.best.step) == (0, 2)
    assert again.probes == guard.probes
    assert again.judge == guard.judge
    again.start.restore(guard.trainer.optimizer)
    assert not all(torch.equal(weight, kept[name]) for name, weight in weights_of(language_model).items())
    again.best.restore(guard.trainer.optimizer)
    assert all(torch.equal(weight, kept[name]) for name, weight in weights_of(language_model).items())


@pytest.mark.parametrize(("at_step_2", "returned_to"), [(0.5, 0), (0.75, 2)])
def test_after_a_fall_of_the_probe_only_weights_that_it_found_better_are_trusted(
    language_model: LanguageModel, tmp_path: Path, at_step_2: float, returned_to: int
) -> None:
    """Those of step 2 lie on the way to the fall. Equal to the first ones, they may have begun to fall unseen."""
    lessons = [Transcript.of_answer(f"Write {k}:\n", f"9 {k}") for k in range(8)]
    results = iter([ProbeResult(dict.fromkeys("abcd", value)) for value in (0.5, at_step_2, 0.0)])
    settings = StabilitySettings(probe_every=2, max_rollbacks=0)
    guard = StabilityGuard(settings, tmp_path, lambda: next(results), tell=lambda _line: None)
    before = weights_of(language_model)
    with pytest.raises(UnstableTrainingError, match=f"The weights are those of step {returned_to}"):
        train_sft(
            language_model, lessons, SFTSettings(learning_rate=1e-2), out=tmp_path, budget=Budget(steps=8), seed=0,
            guard=guard,
        )  # fmt: skip
    same = all(torch.equal(weight, before[name]) for name, weight in weights_of(language_model).items())
    assert same == (returned_to == 0)


@pytest.mark.slow
def test_a_rate_that_is_too_high_rolls_back(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    """Fifty times the rate of the healthy trainings: the first step after a full one is stopped, each time."""
    told: list[str] = []
    probe = executed_probe(undecided, tasks, scorer)
    guard = StabilityGuard(StabilitySettings(kl_every=1, max_rollbacks=1), tmp_path, probe, tell=told.append)
    settings = OnlineSettings(algorithm="grpo", learning_rate=0.25, prompts_per_step=2, samples_per_prompt=12)
    before, rows = weights_of(undecided), Rows()
    with pytest.raises(UnstableTrainingError, match=r"at step 5 after 1 rollbacks: the KL .* To go on, lower"):
        train_online(
            undecided, tasks, scorer, settings, out=tmp_path, budget=Budget(steps=16), seed=0, log=rows, guard=guard
        )
    assert [(step, alarm.kind) for step, alarm in guard.alarms] == [(3, "kl"), (5, "kl")]
    assert [row["rolled_back_to"] for row in rows.rows if "rollbacks" in row] == [0]
    assert sum("given up after 1 rollbacks, with the weights of step 0" in line for line in told) == 1
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(undecided).items())


# ---------------------------------------------------------------- failures that execution shows


@reward
def brevity(patch: PatchText) -> Score:
    """Pays for short lines, whatever they do."""
    added = sum(len(text.strip()) for _, _, text in patch.added)
    return Score(1 / added if added else 0.0, why=f"{added} characters")


@reward
def constant(_: PatchText) -> Score:
    return Score(1.0, why="always")


@pytest.fixture(scope="session")
def capable_folder(
    tokenizer: PreTrainedTokenizerFast, tasks: list[Task], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A saved policy: right about three times in four, otherwise it breaks something by the shortest answer."""
    folder, right = tmp_path_factory.mktemp("policies"), demonstrations(tasks)
    wrong = [Transcript.of_answer(known.prompt, "3 return 0") for known in right]
    policy, settings = untrained(tokenizer), SFTSettings(learning_rate=1e-2, batch_size=8)
    train_sft(policy, right * 3 + wrong, settings, out=folder / "trainer", budget=Budget(steps=50), seed=0)
    return policy.save(folder / "capable")


@pytest.fixture
def capable(capable_folder: Path) -> LanguageModel:
    return load_model(str(capable_folder), device="cpu")


def guard_of(language_model: LanguageModel, tasks: list[Task], scorer: Scorer, folder: Path) -> StabilityGuard:
    """A guard with an executed probe on both tasks, all of whose changes of the policy are seen by the probe alone."""
    settings = StabilitySettings(probe_every=4, max_rollbacks=1, max_kl=None)
    return StabilityGuard(settings, folder, executed_probe(language_model, tasks, scorer), tell=lambda _line: None)


def scores(guard: StabilityGuard) -> dict[int, float]:
    return {step: result.score for step, result in guard.probes}


def alarm_before(guard: StabilityGuard, kind: str, step: int) -> bool:
    return any(alarm.kind == kind and at <= step for at, alarm in guard.alarms)


@pytest.mark.slow
def test_a_reward_that_can_be_hacked_is_noticed_by_the_probe(
    capable: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    """The reward rises while the policy learns to break things; the weights of before are kept."""
    guard, rows = guard_of(capable, tasks, scorer, tmp_path), Rows()
    settings = OnlineSettings(algorithm="grpo", learning_rate=5e-3, prompts_per_step=2, samples_per_prompt=12)
    pays = TrainingReward(reward=brevity, scale=10.0)
    with suppress(UnstableTrainingError):
        train_online(
            capable, tasks, scorer, settings, out=tmp_path, budget=Budget(steps=16), seed=0, reward=pays, log=rows,
            guard=guard,
        )  # fmt: skip
    assert alarm_before(guard, "probe", 16)
    assert max(row.get("breakage", 0.0) for row in rows.rows) > 0.5
    assert scores(guard)[0] == scores(guard)[guard.best.step] == 1.0
    assert guard.probe is not None
    assert guard.probe().score == 1.0, "the model has the best weights again"


@pytest.mark.slow
def test_a_training_that_forgets_is_noticed_by_the_probe(
    capable: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    """SFT on lessons without anything of what the policy knew."""
    guard = guard_of(capable, tasks, scorer, tmp_path)
    lessons = [Transcript.of_answer(f"Write {k}:\n", f"9 {k}") for k in range(8)]
    settings = SFTSettings(learning_rate=1e-2)
    with suppress(UnstableTrainingError):
        train_sft(capable, lessons, settings, out=tmp_path, budget=Budget(steps=16), seed=0, guard=guard)
    assert alarm_before(guard, "probe", 16)
    assert guard.probe is not None
    assert guard.probe().score == scores(guard)[0] == 1.0


@pytest.mark.slow
def test_stale_attempts_are_noticed(capable: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path) -> None:
    """Thirty steps on each batch of attempts."""
    guard, rows = guard_of(capable, tasks, scorer, tmp_path), Rows()
    settings = PPOSettings(learning_rate=1e-2, epochs=30, samples_per_prompt=12)
    with suppress(UnstableTrainingError):
        train_ppo(capable, tasks, scorer, settings, out=tmp_path, budget=Budget(steps=8), seed=0, guard=guard, log=rows)
    assert alarm_before(guard, "clipping", 8)
    first = next(row for row in rows.rows if "rollbacks" in row)
    assert first["alarm/clipping"] > 0.4
    assert guard.trainer.args.kl_coef == 2 * settings.kl_coef
    following = next(row for row in rows.rows if row["step"] == first["step"] + 1)
    assert following["ratio/drift_on_policy"] < 1e-5, "the attempts of the abandoned policy teach nothing more"
    assert guard.probe is not None
    assert guard.probe().score == 1.0


@pytest.mark.slow
def test_a_constant_reward_ends_the_training(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    guard = StabilityGuard(StabilitySettings(max_equal_steps=3), tmp_path, tell=lambda _line: None)
    settings = OnlineSettings(algorithm="grpo", learning_rate=5e-3, prompts_per_step=2, samples_per_prompt=4)
    pays, before = TrainingReward(reward=constant, malformed=1.0), weights_of(undecided)
    with pytest.raises(UnstableTrainingError, match="at step 3: in the last 3 batches, all attempts of each group had"):
        train_online(
            undecided, tasks, scorer, settings, out=tmp_path, budget=Budget(steps=9), seed=0, reward=pays, guard=guard
        )
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(undecided).items())


# ---------------------------------------------------------------- the judge alone

HEALTHY = {"loss": 0.1, "grad_norm": 0.5, "entropy": 1.0, "reward": 0.2, "frac_reward_zero_std": 0.3, "kl": 0.01}


def judged(changes: Mapping[str, float], *, steps: int, is_online: bool = True) -> list[str]:
    """What is said of each of `steps` steps with these changes, after ten healthy ones."""
    judge = StepJudge(StabilitySettings(), is_online)
    assert [judge.judge(HEALTHY) for _ in range(10)] == [None] * 10
    alarms = [judge.judge(HEALTHY | changes) for _ in range(steps)]
    return ["" if alarm is None else f"{alarm.kind}: {alarm.reaction}" for alarm in alarms]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["", "", ""]),
        ({"grad_norm": 9.0}, ["", "", ""]),
        ({"grad_norm": 11.0}, ["gradient: skip", "gradient: skip", "gradient: roll back"]),
        ({"grad_norm": math.nan}, ["non-finite: skip", "non-finite: skip", "non-finite: roll back"]),
        ({"kl": 1.4}, ["", "", ""]),
        ({"kl": 1.6}, ["kl: roll back"] * 3),
        ({"entropy": 0.04}, ["", "", "entropy: roll back"]),
        ({"entropy": 0.04, "reward": 0.9}, ["", "", ""]),
        ({"tampering": 0.2}, ["", "", "tampering: roll back"]),
        ({"completions/clipped_ratio": 0.9}, ["", "", ""]),
        ({"ratio/drift_on_policy": 0.2}, ["", "", "ratio: give up"]),
        ({"clip_ratio/region_mean": 0.5}, ["", "", "clipping: roll back"]),
    ],
)
def test_what_a_step_is_called(changes: dict[str, float], expected: list[str]) -> None:
    assert judged(changes, steps=3) == expected


def test_levels_that_take_longer() -> None:
    equal = {"frac_reward_zero_std": 1.0}
    assert judged(equal, steps=10) == [""] * 9 + ["equal rewards: give up"]
    assert judged(equal | {"fix_and_clean": 1.0}, steps=10) == [""] * 10, "solved"
    assert judged({"reward": math.nan}, steps=10)[-1] == "unscored: give up"
    assert judged({"loss": 0.7}, steps=3, is_online=False) == ["", "", "loss: roll back"]
    critic = judged({"value/explained_variance": -3.0}, steps=8)
    assert critic == [""] * 7 + ["critic: roll back"], "its first five batches do not count"
    judge = StepJudge(StabilitySettings())
    numbers = [{"truncated": 0.1}] * 3 + [{"truncated": 0.8}] * 3
    assert [alarm and alarm.kind for alarm in map(judge.judge, numbers)] == [None] * 5 + ["truncation"]


@pytest.mark.slow
def test_a_sampled_probe_counts_every_attempt(undecided: LanguageModel, tasks: list[Task], scorer: Scorer) -> None:
    """Of a policy that is right about one time in six, and the same attempts for the same weights."""
    probe = executed_probe(undecided, tasks, scorer, samples=12)
    result = probe()
    assert result.values.keys() == {task.id for task in tasks}
    assert 0 < result.numbers["probe/fix_and_clean"] < 1
    shares = result.numbers["probe/fix_and_clean"] - result.numbers["probe/breakage"]
    assert result.score == pytest.approx(shares)
    assert probe() == result


def test_a_probe_falls_beyond_its_error() -> None:
    best = ProbeResult(dict.fromkeys("abcd", 1.0))
    assert ProbeResult(dict.fromkeys("abc", 0.0)).drop_from(best) == (1.0, 0.0), "over the tasks of both"
    drop, error = ProbeResult({"a": 0.0, "b": 1.0, "c": 1.0, "d": 1.0}).drop_from(best)
    assert (drop, error) == (0.25, 0.25)
