"""The preflight of online training, on a tiny model with real executions."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.transcripts import TokenizedEpisode
from regrade.policy_training.trainers.preflight import PreflightCheck, preflight, row_log_probs, template_check
from regrade.rewards import Score as RewardScore
from regrade.rewards import TestRun, reward


@reward
def always(_: TestRun) -> RewardScore:
    return RewardScore(1.0, why="always")


def by_name(checks: list[PreflightCheck]) -> dict[str, PreflightCheck]:
    return {check.name: check for check in checks}


def test_a_sound_training_passes(undecided: LanguageModel, tasks: list[Task], scorer: Scorer) -> None:
    checks = by_name(preflight(undecided, tasks, scorer, DEFAULT_TRAINING_REWARD, Sampling(1.0, 8)))
    ratios = {name: check.verdict for name, check in checks.items() if name.startswith("ratio")}
    exact = ("padding", "batch size", "shared prompts", "sampler")
    assert {name: ratios[f"ratio: {name}"] for name in exact} == dict.fromkeys(exact, "ok")
    assert set(ratios) == {*(f"ratio: {name}" for name in exact), "ratio: precision"}
    assert checks["reward: variance"].verdict == "ok"
    assert checks["reward: variance"].measured.startswith("rewards differ in 100% of 2 groups")
    assert checks["reward: scored"].verdict == "ok"
    assert checks["chat template"].verdict == "not tested"
    assert not undecided.model.training


def test_an_agent_and_a_constant_reward(undecided: LanguageModel, tasks: list[Task], scorer: Scorer) -> None:
    equal = TrainingReward(reward=always, malformed=1.0)
    agent = AgentFormat(EpisodeLimits(turns=2, test_runs=1))
    checks = by_name(preflight(undecided, tasks[:1], scorer, equal, Sampling(1.0, 4), agent=agent))
    assert checks["reward: variance"].verdict == "fails"
    assert checks["ratio: sampler"].verdict == "ok", "observations are read, and not scored"


def test_probabilities_that_differ_are_seen(language_model: LanguageModel) -> None:
    """Rows are scored as a plain forward pass does, whatever the padding; bfloat16 rounds."""
    torch.manual_seed(1)
    episodes = [
        TokenizedEpisode(tuple(range(5, 5 + length)), (20, 21, 30, 31, 22), (True, True, False, False, True), ())
        for length in (3, 9)
    ]
    found = row_log_probs(language_model.model, episodes, 1.0, in_bfloat16=False, padding=4)
    for episode, numbers in zip(episodes, found, strict=True):
        ids = torch.tensor([[*episode.prompt, *episode.tokens]])
        with torch.no_grad():
            normal = language_model.model(ids).logits[0].log_softmax(-1)
        places = [len(episode.prompt) - 1 + place for place, own in enumerate(episode.is_action) if own]
        expected = torch.stack([normal[place, ids[0, place + 1]] for place in places])
        torch.testing.assert_close(numbers, expected, atol=1e-5, rtol=1e-5)
    rounded = row_log_probs(language_model.model, episodes, 1.0, in_bfloat16=True, padding=4)
    assert float((torch.cat(rounded) - torch.cat(found)).abs().max()) > 1e-4


PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
FORGETFUL = (
    "{% for m in messages %}{% if loop.last or m.role == 'user' %}{{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
REFUSING = "{{ raise_exception('no user messages') }}"


@pytest.mark.parametrize(("template", "verdict"), [(PLAIN, "ok"), (FORGETFUL, "suspect"), (REFUSING, "not tested")])
def test_templates(tokenizer: PreTrainedTokenizerFast, template: str, verdict: str) -> None:
    tokenizer.chat_template = template
    try:
        assert template_check(tokenizer).verdict == verdict
    finally:
        tokenizer.chat_template = None


def test_what_cannot_be_checked_is_a_user_error(
    language_model: LanguageModel, tasks: list[Task], scorer: Scorer
) -> None:
    with pytest.raises(UserError, match="no tasks to check"):
        preflight(language_model, [], scorer, DEFAULT_TRAINING_REWARD, Sampling(1.0, 4))
    with pytest.raises(UserError, match="temperature is 0"):
        preflight(language_model, tasks, scorer, DEFAULT_TRAINING_REWARD, Sampling(0.0, 4))
