"""What was sampled before a kill is neither lost nor sampled again, and all of it is what one process samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import pytest

from regrade.datasets.rollouts import Policy, Rollout, Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation import stored_rollouts as module
from regrade.evaluators.evaluation.stored_rollouts import stored_rollouts
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_policy import AgentFormat, AgentPolicy
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.policies.local_model import ModelPolicy
from regrade.policy_training.policies.models import load_model

SAMPLING = Sampling(1.0, 3)


@dataclass
class Counted:
    """A policy that says which tasks it was asked for."""

    policy: Policy
    asked: list[list[str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.policy.name

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        self.asked.append([task.id for task in tasks])
        return self.policy.propose(tasks, samplings, seed)


@pytest.fixture(params=["one turn", "agent"])
def policy(request: pytest.FixtureRequest, undecided_folder: Path, scorer: Scorer) -> Counted:
    model = load_model(str(undecided_folder))
    if request.param == "one turn":
        return Counted(ModelPolicy(model, "p"))
    return Counted(AgentPolicy(model, scorer, "p", AgentFormat(EpisodeLimits(turns=2, test_runs=1))))


def contents(rollouts: Sequence[Rollout]) -> list[object]:
    """All but times, in the order of the attempts."""
    return [
        (each.task_id, each.sample, each.policy, each.patch, each.prompt, each.completion, each.well_formed,
         each.tokens, each.seed, each.temperature,
         each.episode and [replace(step, seconds=0.0) for step in each.episode.steps],
         each.episode and dict(each.episode.patches))
        for each in sorted(rollouts, key=lambda each: (each.task_id, each.sample))
    ]  # fmt: skip


def test_a_killed_sampling_goes_on_to_the_same_attempts(
    policy: Counted, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    path = tmp_path / "sampled.jsonl"
    whole = list(policy.policy.propose(tasks, [SAMPLING], 7))
    first = stored_rollouts(policy, tasks, [SAMPLING], 7, path)
    begun = list(islice(first, SAMPLING.samples + 1))  # one task at least is open
    with path.open("a") as file:
        file.write('{"task": "torn')  # the kill came in the midst of a line
    resumed = list(stored_rollouts(policy, tasks, [SAMPLING], 7, path))
    assert contents(resumed) == contents(whole)
    complete = {name for name in policy.asked[0] if sum(each.task_id == name for each in begun) == SAMPLING.samples}
    assert policy.asked[1] == [task.id for task in tasks if task.id not in complete]
    assert len(path.read_text().splitlines()) == len(whole), "nothing is doubled"

    assert contents(list(stored_rollouts(policy, tasks, [SAMPLING], 7, path))) == contents(whole)
    assert len(policy.asked) == 2, "nothing is sampled again"
    changed = [replace(tasks[0], fail_to_pass=()), *tasks[1:]]
    list(islice(stored_rollouts(policy, changed, [SAMPLING], 7, path), len(whole)))
    assert policy.asked[2] == [tasks[0].id], "of a task that has changed, all is"
    first.close()


def test_what_was_sampled_is_written_when_the_process_stops(
    policy: Counted, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 1e6)
    path = tmp_path / "sampled.jsonl"
    sampling = stored_rollouts(policy, tasks, [SAMPLING], 7, path)
    begun = list(islice(sampling, 2))
    assert not path.exists(), "not each attempt waits for the disk"
    sampling.close()
    assert len(path.read_text().splitlines()) == len(begun)
