"""A local checkpoint works by one-line actions for somebody who watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from regrade.datasets.episodes import EpisodeEnd, Step
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.environments.compact_loop import run_watched, watched_dialogue
from regrade.policy_training.policies.models import LanguageModel


def test_each_action_is_shown_as_it_ends(
    undecided: LanguageModel, make_task: Callable[[str], Task], scorer: Scorer
) -> None:
    seen: list[Step] = []
    watched = watched_dialogue(undecided, make_task("second"), scorer, EpisodeLimits(turns=3), seen.append, 1.0)
    run_watched(watched, seed=1)
    assert watched.episode is not None
    episode = watched.episode.episode()
    assert tuple(seen) == episode.steps
    assert 1 <= len(seen) <= 3
    assert episode.end in (EpisodeEnd.TURNS, EpisodeEnd.TOKENS, EpisodeEnd.SUBMITTED)


def test_an_action_may_be_as_long_as_in_the_training_of_the_checkpoint(
    undecided: LanguageModel, make_task: Callable[[str], Task], scorer: Scorer, tmp_path: Path
) -> None:
    """Calls of tools need more than a line; and an episode has room for all of its turns."""
    trained = AgentFormat(EpisodeLimits(turns=12), max_action_tokens=512)
    assert trained.max_tokens == 12 * (512 + 60) - 60
    assert AgentFormat(EpisodeLimits(turns=12)).max_tokens == 12 * 100
    for name, text in replace(trained, max_action_tokens=77).files().items():
        (tmp_path / name).write_text(text)
    checkpoint = replace(undecided, name=str(tmp_path))
    watched = watched_dialogue(checkpoint, make_task("second"), scorer, EpisodeLimits(turns=3), lambda _: None)
    assert watched.dialogue.format.max_action_tokens == 77
