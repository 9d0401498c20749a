"""Does the stability guard save a training that fails? Six induced failures, with the guard and without it.

    python benchmarks/induced_failures.py                        # some 15 minutes on one core
    python benchmarks/induced_failures.py --only forgets --dry

A tiny model learns by SFT to fix 45 functions, and is right about nine times in ten. From there, real trainers fail on
purpose: the rate is 50 times too high, the reward is constant or pays for short lines, PPO takes 30 steps on the same
attempts, a batch has NaN, SFT learns something else. Three sets of tasks: training, the guard's held-out probe, and a
third one, of which the score is estimated: per task, clean fixes less breakage, over attempts sampled before and after,
all executed. So the guard's choice of the best probe does not flatter it.

Printed of each failure: the alarms, the score after it, and the mean difference from the score before, with its 95 %
interval for new tasks of this kind. "Worse" means that the whole interval is below 0.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple
from unittest.mock import patch as patched

import torch
from _latest import record
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from regrade.datasets.errors import UnstableTrainingError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Sampling
from regrade.datasets.tasks import Limits, Target, Task, Tree
from regrade.datasets.tasks import TestSuite as Suite
from regrade.evaluators.analysis.clustered_means import Sample
from regrade.evaluators.analysis.uncertainty import difference_interval
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.attempts import gather
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
from regrade.policy_training.policies.local_model import ModelPolicy
from regrade.policy_training.policies.models import LanguageModel, load_model
from regrade.policy_training.policies.transcripts import Transcript
from regrade.policy_training.trainers import stability
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.online import train_online
from regrade.policy_training.trainers.ppo import train_ppo
from regrade.policy_training.trainers.probes import executed_probe
from regrade.policy_training.trainers.settings import OnlineSettings, PPOSettings, SFTSettings, StabilitySettings
from regrade.policy_training.trainers.sft import demonstrations, train_sft
from regrade.policy_training.trainers.stability import StabilityGuard
from regrade.rewards import PatchText, Score, reward

FUNCTION = '''\
def {name}(number):
    """Return the number {sign} {amount}."""
    if number is None:
        return None
    return number {wrong} {amount}
'''
TEST = """\
def test_{name}():
    assert {name}(7) == 7 {sign} {amount}


def test_{name}_of_nothing():
    assert {name}(None) is None
"""
SIGNS = {"+": "-", "-": "+", "*": "+"}
"""Of a function -> that of its bug."""
BREAKS = "3 return 0"
"""An answer that is shorter than any fix, and breaks a test."""
HEALTHY_RATE, ATTEMPTS_PER_TASK = 5e-3, 8
GUARD = StabilitySettings(probe_every=4, kl_every=2, max_equal_steps=4, max_rollbacks=1)
"""The defaults, but for trainings of 16 steps."""


def make_tasks(count: int, folder: Path) -> list[Task]:
    """Functions with one bug each, in one file, and a task for each."""
    parts = [(sign, amount) for amount in range(2, 2 + math.ceil(count / 3)) for sign in SIGNS][:count]
    words = {"+": "plus", "-": "minus", "*": "times"}
    names = [f"{words[sign]}_{amount}" for sign, amount in parts]
    bodies = [
        FUNCTION.format(name=name, sign=sign, amount=amount, wrong=SIGNS[sign])
        for name, (sign, amount) in zip(names, parts, strict=True)
    ]
    library = "\n\n".join(bodies)
    tests = [
        TEST.format(name=name, sign=sign, amount=amount) for name, (sign, amount) in zip(names, parts, strict=True)
    ]
    folder.mkdir()
    (folder / "library.py").write_text(library)
    (folder / "test_library.py").write_text(f"from library import {', '.join(names)}\n\n\n" + "\n\n".join(tests))
    found = []
    for number, (name, (sign, amount)) in enumerate(zip(names, parts, strict=True)):
        fixed = bodies[number].replace(f"number {SIGNS[sign]} {amount}\n", f"number {sign} {amount}\n")
        fix = Patch.between({"library.py": library}, {"library.py": library.replace(bodies[number], fixed)})
        first, failing = 1 + 7 * number, f"test_library.py::test_{name}"
        found.append(
            Task(
                id=name, repository="library", base=Tree(folder), instruction=f"Fix `{name}`.",
                fail_to_pass=(failing,), pass_to_pass=(f"{failing}_of_nothing",), suite=Suite(),
                limits=Limits(wall_seconds=30), target=Target("library.py", name, first, first + 4),
                failure=f">>> {failing}\nAssertionError",
                reference=fix,
            )
        )  # fmt: skip
    return found


def random_model(folder: Path) -> LanguageModel:
    """A Llama of two layers with random weights, and a tokenizer trained on the tasks' files."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>", "<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    bare.train_from_iterator([path.read_text() for path in sorted(folder.glob("*.py"))], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<end>", pad_token="<pad>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    return LanguageModel("tiny", LlamaForCausalLM(config).eval(), tokenizer)


def capable_policy(tasks: Sequence[Task], folder: Path, steps: int) -> Path:
    """The SFT baseline: of each task it has seen the fix nine times, and once an answer that breaks something."""
    right = demonstrations(tasks)
    wrong = [Transcript.of_answer(known.prompt, BREAKS) for known in right]
    policy, settings = random_model(tasks[0].base.root), SFTSettings(learning_rate=1e-2, batch_size=16)
    train_sft(policy, right * 9 + wrong, settings, out=folder / "trainer", budget=Budget(steps=steps), seed=0)
    return policy.save(folder / "capable")


@dataclass
class Experiment:
    """The tasks, the SFT baseline, and what all trainings have in common."""

    folder: Path
    scorer: Scorer
    sizes: tuple[int, int, int] = (9, 12, 24)
    """Tasks to train on, to probe, and to estimate the score on."""
    sft_steps: int = 400
    steps: int = 16
    start: Path = field(init=False)

    def __post_init__(self) -> None:
        made = make_tasks(sum(self.sizes), self.folder / "library")
        self.start = capable_policy(made, self.folder, self.sft_steps)
        random.Random(0).shuffle(made)
        first, second, _ = self.sizes
        self.learned, self.probed, self.judged = made[:first], made[first : first + second], made[first + second :]

    def policy(self) -> LanguageModel:
        return load_model(str(self.start), device="cpu")

    def scores(self, language_model: LanguageModel) -> dict[str, float]:
        """Per judged task: the share of clean fixes, less that of breakage."""
        sampling, policy = Sampling(1.0, ATTEMPTS_PER_TASK), ModelPolicy(language_model, "judged")
        attempts, _ = gather(policy, self.judged, sampling, 1, self.scorer, DEFAULT_TRAINING_REWARD)
        found: dict[str, list[float]] = {task.id: [] for task in self.judged}
        for attempt in attempts:
            found[attempt.rollout.task_id].append(float(attempt.verified) - float(attempt.broke))
        return {name: fmean(values) for name, values in found.items()}

    def online(self, policy: LanguageModel, guard: StabilityGuard | None, out: Path, **options: Any) -> None:
        pays = options.pop("reward", DEFAULT_TRAINING_REWARD)
        settings: dict[str, Any] = {"prompts_per_step": 4, "samples_per_prompt": 8, "learning_rate": HEALTHY_RATE}
        train_online(
            policy, self.learned, self.scorer, OnlineSettings(algorithm="grpo", **settings | options), out=out,
            budget=Budget(steps=self.steps), seed=0, reward=pays, guard=guard,
        )  # fmt: skip


# ---------------------------------------------------------------- the failures


@reward
def brevity(patch: PatchText) -> Score:
    """Pays for short lines, whatever they do."""
    added = sum(len(text.strip()) for _, _, text in patch.added)
    return Score(1 / added if added else 0.0, why=f"{added} characters")


@reward
def constant(_: PatchText) -> Score:
    return Score(1.0, why="always")


Fail = Callable[[Experiment, LanguageModel, StabilityGuard | None, Path], None]


def rate_times_50(of: Experiment, policy: LanguageModel, guard: StabilityGuard | None, out: Path) -> None:
    of.online(policy, guard, out, learning_rate=50 * HEALTHY_RATE)


def constant_reward(of: Experiment, policy: LanguageModel, guard: StabilityGuard | None, out: Path) -> None:
    of.online(policy, guard, out, reward=TrainingReward(reward=constant, malformed=1.0))


def hackable_reward(of: Experiment, policy: LanguageModel, guard: StabilityGuard | None, out: Path) -> None:
    of.online(policy, guard, out, reward=TrainingReward(reward=brevity, scale=10.0))


def stale_attempts(of: Experiment, policy: LanguageModel, guard: StabilityGuard | None, out: Path) -> None:
    settings = PPOSettings(learning_rate=1e-2, epochs=30, prompts_per_step=4, samples_per_prompt=8)
    budget = Budget(steps=2 * of.steps)
    train_ppo(policy, of.learned, of.scorer, settings, out=out, budget=budget, seed=0, guard=guard)


def nan_in_one_batch(of: Experiment, policy: LanguageModel, guard: StabilityGuard | None, out: Path) -> None:
    with poisoned(step=3):
        of.online(policy, guard, out)


def forgets(of: Experiment, policy: LanguageModel, guard: StabilityGuard | None, out: Path) -> None:
    lessons = [Transcript.of_answer(f"Write {k}:\n", f"9 {k}") for k in range(8)]
    settings, budget = SFTSettings(learning_rate=1e-2), Budget(steps=2 * of.steps)
    train_sft(policy, lessons, settings, out=out, budget=budget, seed=0, guard=guard)


@contextmanager
def poisoned(step: int) -> Iterator[None]:
    """In this step, loss and gradients are NaN."""
    compute = stability.GuardedSteps.training_step

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = compute(self, *args, **kwargs)
        if self.state.global_step == step - 1:
            self.step_loss = math.nan
            for weight in self.model.parameters():
                if weight.grad is not None:
                    weight.grad.fill_(math.nan)
        return loss

    with patched.object(stability.GuardedSteps, "training_step", training_step):
        yield


FAILURES: Mapping[str, Fail] = {
    function.__name__: function
    for function in (rate_times_50, constant_reward, hackable_reward, stale_attempts, nan_in_one_batch, forgets)
}


# ---------------------------------------------------------------- their results


class Outcome(NamedTuple):
    """Of one training: how the score of the third set of tasks changed."""

    score: float
    difference: float
    low: float
    high: float
    """Its 95 % interval."""
    has_same_weights: bool
    """As before the training."""
    alarms: str

    @property
    def is_worse(self) -> bool:
        return self.high < 0

    def __str__(self) -> str:
        end = ", worse" if self.is_worse else ", the same weights" if self.has_same_weights else ""
        return f"{self.score:.2f}: {self.difference:+.2f} [{self.low:+.2f}, {self.high:+.2f}]{end}"


def outcome(of: Experiment, name: str, before: Mapping[str, float], *, guarded: bool) -> Outcome:
    """Let a training fail, and compare the policy with the one that it started from."""
    policy, out = of.policy(), of.folder / f"{name}-{'guarded' if guarded else 'alone'}"
    guard = None
    if guarded:
        probe = executed_probe(policy, of.probed, of.scorer, samples=GUARD.probe_samples)
        guard = StabilityGuard(GUARD, out, probe, tell=lambda _line: None)
    with suppress(UnstableTrainingError):
        FAILURES[name](of, policy, guard, out)
    after, start = of.scores(policy), of.policy().model.state_dict()
    differences = [after[task] - before[task] for task in before]
    low, high = difference_interval(Sample.of(differences, list(before), ["library"] * len(before)), most=2.0)
    is_same = all(torch.equal(weight, start[key]) for key, weight in policy.model.state_dict().items())
    return Outcome(fmean(after.values()), fmean(differences), low, high, is_same, _alarms(guard))


def _alarms(guard: StabilityGuard | None) -> str:
    if guard is None or not guard.alarms:
        return "none"
    end = "; given up" if guard.verdict else ""
    return ", ".join(f"{alarm.kind} at step {step}" for step, alarm in guard.alarms) + end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=FAILURES, help="one failure")
    parser.add_argument("--dry", action="store_true", help="do not record the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as scratch, Scorer(workers=1) as scorer:
        of = Experiment(Path(scratch), scorer)
        before = of.scores(of.policy())
        print(f"{len(before)} tasks, {ATTEMPTS_PER_TASK} attempts each; score before: {fmean(before.values()):.2f}")
        print("| failure | alarms | after, with the guard | after, without |\n|-|-|-|-|", flush=True)
        for name in FAILURES if options.only is None else [options.only]:
            guarded, alone = (outcome(of, name, before, guarded=guarded) for guarded in (True, False))
            print(f"| {name.replace('_', ' ')} | {guarded.alarms} | {guarded} | {alone} |", flush=True)
            figures[name] = {"with": guarded._asdict(), "without": alone._asdict()}
    worse = [name for name, each in figures.items() if each["with"]["high"] < 0]
    print(f"worse than the SFT baseline beyond its interval, with the guard: {', '.join(worse) or 'none'}")
    if not options.dry and options.only is None:
        record("induced_failures", figures)


if __name__ == "__main__":
    main()
