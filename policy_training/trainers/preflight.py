"""The preflight of online training (`regrade train check`): what would make it unstable, seen before the first step.

A few attempts are sampled and executed. The same tokens are then scored again under other padding, batch sizes and
precision, as the trainer would, and as the sampler did: where these probabilities differ, the ratio of the policy to
itself is not 1, and every step begins off-policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor

from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_policy import AgentFormat, AgentPolicy
from regrade.policy_training.environments.attempts import Attempt, judge
from regrade.policy_training.environments.training_reward import TrainingReward
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.precision import uses_bfloat16
from regrade.policy_training.policies.transcripts import TokenizedEpisode
from regrade.policy_training.trainers.ratio_drift import ratio_drift
from regrade.policy_training.trainers.shared_prompts import pack, packed_log_probs, passes

PreflightVerdict = Literal["ok", "suspect", "fails", "not tested"]

NORMAL_GAP, SUSPECT_GAP = 0.005, 0.01
"""Mean difference of a token's probability: what is common between sampler and trainer, and what has broken runs."""
ROWS_AT_A_TIME, PADDING = 8, 7
TOKENS_PER_PASS = 6144
FEW_GROUPS, MANY_UNSCORED, MANY_UNREADABLE = 0.25, 0.1, 0.5


@dataclass(frozen=True)
class PreflightCheck:
    """One line of the preflight."""

    name: str
    verdict: PreflightVerdict
    measured: str
    meaning: str
    """What it means, or what to do."""


def preflight(
    language_model: LanguageModel,
    tasks: Sequence[Task],
    scorer: Scorer,
    reward: TrainingReward,
    sampling: Sampling,
    *,
    agent: AgentFormat | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[PreflightCheck]:
    """Sample and execute `sampling.samples` attempts per task, and check what online training relies on.

    Args:
        agent: of an agent. Default: None: the policy answers once.
        progress: called with the stage, and the numbers of done and of all.

    Raises:
        UserError: there are no tasks, or the temperature is 0.
    """
    if not tasks:
        raise UserError("no tasks to check: choose others with `tasks=` or `split=` (see `regrade tasks list`)")
    if not sampling.temperature > 0:
        raise UserError(f"temperature is {sampling.temperature}: online training samples; give a number above 0")
    scorer.gather((), reward.reward.needs)  # fails if a probe is missing
    report = progress or (lambda _stage, _done, _total: None)
    hidden = [task.without_reference() for task in tasks]
    policy = AgentPolicy(language_model, scorer, "preflight", agent or AgentFormat())
    policy.progress = lambda done, total: report("sampling", done, total)
    sampled = list(policy.sample(hidden, [sampling], seed))
    episodes = [sample.tokens for sample in sampled if any(sample.tokens.is_action)]
    rollouts = [sample.rollout for sample in sampled]
    attempts = judge(rollouts, {task.id: task for task in hidden}, scorer, reward, lambda *n: report("executing", *n))
    was_training = language_model.model.training
    language_model.model.eval()
    try:
        ratios = list(_ratio_checks(language_model.model, episodes, sampling.temperature))
    finally:
        language_model.model.train(was_training)
    return [*ratios, template_check(language_model.tokenizer), *reward_checks(attempts)]


# ---------------------------------------------------------------- the same tokens, scored in several ways


def _ratio_checks(model: Any, episodes: Sequence[TokenizedEpisode], heat: float) -> Iterator[PreflightCheck]:
    rounds = uses_bfloat16(model.device.type, model.num_parameters())
    alone = row_log_probs(model, episodes, heat, rows=1, in_bfloat16=rounds)
    batched = row_log_probs(model, episodes, heat, in_bfloat16=rounds)
    padded = row_log_probs(model, episodes, heat, padding=PADDING, in_bfloat16=rounds)
    packed = _packed(model, episodes, heat)
    yield _ratio_check("padding", padded, batched, f"the same batch with {PADDING} more tokens of padding on the left")
    yield _ratio_check("batch size", batched, alone, f"{ROWS_AT_A_TIME} rows at a time, or one")
    other = row_log_probs(model, episodes, heat, in_bfloat16=not rounds)
    used = "bfloat16 is used here, float32 with REGRADE_PRECISION=float32" if rounds else "float32 is used here"
    yield _ratio_check("precision", other, batched, f"bfloat16 against float32; {used}", worst="suspect")
    yield _ratio_check("shared prompts", packed, alone, "the trainer's pass, in which attempts share their prompt")
    if all(episode.log_probs for episode in episodes):
        device = packed[0].device if packed else None
        sampler = [
            torch.tensor([p for p, own in zip(e.log_probs, e.is_action, strict=True) if own], device=device)
            for e in episodes
        ]
        yield _ratio_check("sampler", packed, sampler, "the trainer's probabilities against the sampler's")


def _ratio_check(
    name: str, now: Sequence[Tensor], then: Sequence[Tensor], what: str, worst: PreflightVerdict = "fails"
) -> PreflightCheck:
    if not now:
        return PreflightCheck(f"ratio: {name}", "not tested", "", "no attempt has a token")
    new, old = torch.cat(list(now)), torch.cat(list(then))
    drift = ratio_drift(new, old)
    gap = drift.gap
    verdict: PreflightVerdict = "ok" if gap < NORMAL_GAP else "suspect" if gap < SUSPECT_GAP else worst
    measured = f"probabilities differ by {gap:.2g}, ratios by up to {drift.largest:.2g}; {drift.outside:.1%} of "
    return PreflightCheck(f"ratio: {name}", verdict, measured + "them outside [0.8, 1.2]", what)


@torch.no_grad()
def row_log_probs(
    model: Any,
    episodes: Sequence[TokenizedEpisode],
    temperature: float,
    *,
    in_bfloat16: bool,
    rows: int = ROWS_AT_A_TIME,
    padding: int = 0,
) -> list[Tensor]:
    """Log-probabilities of each episode's actions, (tokens,) each, by plain forward passes over left-padded rows.

    Args:
        padding: tokens of padding beside what the longest row makes necessary.
    """
    scored = []
    for start in range(0, len(episodes), rows):
        some = episodes[start : start + rows]
        lengths = [len(episode.prompt) + len(episode.tokens) for episode in some]
        width = max(lengths) + padding
        ids, mask = torch.zeros((2, len(some), width), dtype=torch.long)
        for row, (episode, length) in enumerate(zip(some, lengths, strict=True)):
            ids[row, width - length :] = torch.tensor([*episode.prompt, *episode.tokens])
            mask[row, width - length :] = 1
        ids, mask = ids.to(model.device), mask.to(model.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        # Weights are float32 to train, and autocast rounds what it computes with them.
        with torch.autocast(model.device.type, torch.bfloat16, enabled=in_bfloat16):
            logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
        for row, episode in enumerate(some):
            first = width - len(episode.tokens)
            own = torch.tensor(episode.is_action, device=ids.device)
            normal = (logits[row, first - 1 : -1][own].float() / temperature).log_softmax(-1)
            scored.append(normal.gather(1, ids[row, first:][own][:, None])[:, 0])
    return scored


@torch.no_grad()
def _packed(model: Any, episodes: Sequence[TokenizedEpisode], temperature: float) -> list[Tensor]:
    """As `row_log_probs`, by the trainer's own pass."""
    rows, positions = pack(
        [episode.prompt for episode in episodes],
        [episode.tokens for episode in episodes],
        [list(map(int, episode.is_action)) for episode in episodes],
    )
    found: list[list[Tensor]] = []
    for start, end in passes([row.length for row in rows], TOKENS_PER_PASS) if rows else ():
        found.extend(packed_log_probs(model, rows[start:end], temperature)[0])
    return [found[row][place] for row, place in positions]


# ---------------------------------------------------------------- the chat template

MESSAGES = (
    {"role": "user", "content": "Fix add."},
    {"role": "assistant", "content": "I run the tests."},
    {"role": "user", "content": "1 failed"},
    {"role": "assistant", "content": "Done."},
)


def template_check(tokenizer: Any) -> PreflightCheck:
    """Is a conversation's beginning, as tokens, the beginning of the longer conversation's?"""
    name = "chat template"
    if not getattr(tokenizer, "chat_template", None):
        return PreflightCheck(name, "not tested", "none", "the model has no template; Regrade's prompts need none")
    try:
        for asked in (1, 3):
            shorter = _rendered(tokenizer, MESSAGES[:asked], add_generation_prompt=True)
            for length in range(asked + 1, len(MESSAGES) + 1):
                longer = _rendered(tokenizer, MESSAGES[:length])
                if longer[: len(shorter)] != shorter:
                    meaning = "a conversation rendered again is not what was sampled: train on recorded tokens alone"
                    return PreflightCheck(name, "suspect", f"changes once message {length} follows", meaning)
    except Exception as error:  # templates are programs of others, and raise what they like
        return PreflightCheck(name, "not tested", "it refuses a plain conversation", str(error).split("\n")[0])
    return PreflightCheck(name, "ok", "prefixes are stable", "what was said before stays the same, token by token")


def _rendered(tokenizer: Any, messages: Sequence[dict[str, str]], **options: bool) -> list[int]:
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


# ---------------------------------------------------------------- the reward


def reward_checks(attempts: Sequence[Attempt]) -> list[PreflightCheck]:
    """Can the attempts be scored, and do those of a task differ?"""
    unscored = fmean(attempt.reward is None for attempt in attempts)
    unreadable = fmean(not attempt.rollout.well_formed for attempt in attempts)
    return [
        PreflightCheck(
            "reward: scored",
            "fails" if unscored == 1 else "suspect" if unscored > MANY_UNSCORED else "ok",
            f"{unscored:.0%} of {len(attempts)} attempts unscored",
            "a group with an unscored attempt teaches nothing; see `regrade doctor TASKS`",
        ),
        PreflightCheck(
            "reward: readable",
            "suspect" if unreadable > MANY_UNREADABLE else "ok",
            f"{unreadable:.0%} of the answers hold no patch",
            "train by sft first, so that the policy knows the form of an answer",
        ),
        _variance_check(attempts),
    ]


def _variance_check(attempts: Sequence[Attempt]) -> PreflightCheck:
    name, groups = "reward: variance", dict[str, list[float]]()
    for attempt in attempts:
        groups.setdefault(attempt.rollout.task_id, []).append(math.nan if attempt.reward is None else attempt.reward)
    scored = [values for values in groups.values() if not any(map(math.isnan, values))]
    if not scored:
        return PreflightCheck(name, "not tested", "no group is scored", "")
    differing = fmean(max(values) - min(values) > 0 for values in scored)
    mean = fmean(value for values in scored for value in values)
    return PreflightCheck(
        name,
        "fails" if differing == 0 else "suspect" if differing < FEW_GROUPS else "ok",
        f"rewards differ in {differing:.0%} of {len(scored)} groups; their mean is {mean:.3g}",
        "equal rewards teach nothing: more attempts per task, easier tasks, or a reward that tells attempts apart",
    )
