"""A local checkpoint works by one-line actions for somebody who watches."""

from __future__ import annotations

from collections.abc import Callable

from regrade.datasets.episodes import EpisodeEnd, Step
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
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
