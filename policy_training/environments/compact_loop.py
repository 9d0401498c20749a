"""A local model works on one task by one-line actions, for somebody who watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from regrade.datasets.episodes import Step
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.rollout_scoring import EvidenceSource
from regrade.policy_training.environments.agent_policy import AgentDialogue, AgentFormat, AgentPolicy, dialogues_of
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.environments.compact_episode import CompactEpisode
from regrade.policy_training.environments.harmony_actions import HarmonyEpisode
from regrade.policy_training.policies.dialogues import run_dialogues
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.precision import to_sample_from

UNKNOWN_CONTEXT = 2048
"""Tokens of an episode, for a model that does not say how many it can read."""


@dataclass
class WatchedDialogue:
    """One episode in one-line actions, as far as it has come."""

    dialogue: AgentDialogue
    watch: Callable[[Step], None]
    """Called with each step as it ends."""
    prompt: Sequence[int] = field(init=False)
    temperature: float = field(init=False)

    def __post_init__(self) -> None:
        self.prompt, self.temperature = self.dialogue.prompt, self.dialogue.temperature

    @property
    def episode(self) -> CompactEpisode | HarmonyEpisode | None:
        """None before the first action."""
        return self.dialogue.episode

    def reply(self, tokens: list[int]) -> list[int] | None:
        shown = self.dialogue.reply(tokens)
        if self.episode is not None and self.episode.environment.session.steps:
            self.watch(self.episode.environment.session.steps[-1])
        return shown


def watched_dialogue(
    language_model: LanguageModel,
    task: Task,
    scorer: EvidenceSource,
    limits: EpisodeLimits,
    watch: Callable[[Step], None],
    temperature: float = 0.0,
) -> WatchedDialogue:
    """An episode at the task that `run_watched` carries out. A full context ends it.

    An action has as many tokens as in the training of the checkpoint: a call of a tool needs more than a line.
    """
    context = getattr(language_model.model.config, "max_position_embeddings", None) or UNKNOWN_CONTEXT
    trained = AgentFormat.of_checkpoint(Path(language_model.name))
    agent = AgentFormat(limits, max_action_tokens=min(trained.max_action_tokens, context), max_tokens=context)
    policy = AgentPolicy(language_model, scorer, language_model.name, agent)
    (dialogue,) = dialogues_of(policy, task, [temperature])
    room = max(dialogue.format.max_action_tokens, context - len(dialogue.prompt))
    dialogue.format = replace(dialogue.format, max_tokens=room)
    return WatchedDialogue(dialogue, watch)


def run_watched(watched: WatchedDialogue, seed: int = 0) -> None:
    """Generate and execute actions until the episode is over."""
    dialogue = watched.dialogue
    list(
        run_dialogues(
            to_sample_from(dialogue.language_model.model),
            [watched],
            stop_ids=dialogue.language_model.stop_ids,
            max_action_tokens=dialogue.format.max_action_tokens,
            max_tokens=dialogue.format.max_tokens,
            seed=seed,
            rows=1,
        )
    )
