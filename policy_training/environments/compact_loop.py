"""A plain loop that lets a local model work on a task by one-line actions."""

from __future__ import annotations

from collections.abc import Callable

from regrade.datasets.episodes import Episode, EpisodeEnd, Step
from regrade.policy_training.environments.agent_tools import RepositoryEnvironment
from regrade.policy_training.environments.compact_episode import CompactEpisode
from regrade.policy_training.policies.local_model import complete
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.single_turn_prompt import MAX_ANSWER_TOKENS
from regrade.policy_training.policies.transcripts import framed


def run_compact_episode(
    environment: RepositoryEnvironment,
    task_id: str,
    language_model: LanguageModel,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    watch: Callable[[Step], None] | None = None,
) -> Episode:
    """One episode of a checkpoint that was trained on one-line actions. A full context ends it.

    Args:
        watch: called with each step as it ends.

    Raises:
        UserError: the environment has no such task.
    """
    episode = CompactEpisode(environment, task_id)
    session = environment.session
    tokens = language_model.encode(episode.prompt)
    longest = getattr(language_model.model.config, "max_position_embeddings", None)
    while not session.is_over():
        if longest is not None and len(tokens) + MAX_ANSWER_TOKENS > longest:
            session.end = EpisodeEnd.TOKENS
            break
        ((_, (action,)),) = complete(language_model, [tokens], [temperature], seed)
        session.tokens += len(action)
        observation = episode.act(language_model.decode(action))
        if watch is not None and session.steps:
            watch(session.steps[-1])
        if observation is None:
            break
        if action[-1:] != language_model.stop_ids[:1]:
            action = [*action, language_model.stop_ids[0]]
        tokens += [*action, *language_model.encode(framed(observation))]
    return episode.episode()
