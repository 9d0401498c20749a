"""Chat models behind a real HTTP server as agents of an evaluation: executed, recorded, resumed, and lost."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.episodes import EpisodeEnd
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import PolicyWithoutScorer, Rollout, Sampling, TrialPolicy
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.rollout_scoring import evaluate
from regrade.evaluators.evaluation.sweeps import Judge, Sweep, enter
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.episode_file import EpisodeFile, episodes_path
from regrade.evaluators.storage.rows import LOST
from regrade.evaluators.storage.run import Run
from regrade.policy_training.environments.agent_policy import AgentFormat, AgentPolicy
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.environments.endpoint_agents import EndpointAgentPolicy
from regrade.policy_training.policies.endpoint_requests import Endpoint
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policy_files import read_policies
from regrade.rewards import tests as passing
from regrade.rewards.evidence import EvidenceSet
from tests.endpoint_server import Answer, serving

FIX = {"path": "library.py", "old": "items[2]", "new": "items[1]"}


def answer(*calls: tuple[str, Any], content: str | None = None) -> Answer:
    tools = [
        {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": given}}
        for n, (name, given) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": content, "tool_calls": tools}
    return 200, {"choices": [{"message": message}], "usage": {"completion_tokens": 5}}


def by_turn(*turns: Answer) -> Callable[[dict[str, Any]], Answer]:
    """What the model says, by how often it has spoken in this chat."""
    return lambda request: turns[sum(message["role"] == "assistant" for message in request["messages"])]


def quick(url: str, **more: Any) -> Endpoint:
    return Endpoint(base_url=url, model="org/model", pause=0.01, **more)


def played(endpoint: Endpoint, tasks: list[Task], scorer: Scorer, samples: int = 1, **limits: Any) -> list[Rollout]:
    policy = EndpointAgentPolicy(endpoint, "model", scorer, EpisodeLimits(**limits))
    return list(policy.propose(tasks, [Sampling(0.7, samples)], seed=3))


def test_agents_behind_an_endpoint_work_at_the_same_time(tasks: list[Task], scorer: Scorer) -> None:
    turns = by_turn(
        answer(("search", '{"pattern": "items"}'), content="I look."),
        answer(("edit", json.dumps(FIX))),
        answer(("run_tests", "")),
        answer(("submit", "{}")),
    )
    with serving(turns, seconds=0.05) as server:
        rollouts = played(quick(server.url, at_a_time=3), tasks[:1], scorer, samples=3)
    assert server.most_at_a_time > 1
    assert {rollout.sample for rollout in rollouts} == {0, 1, 2}
    for rollout in rollouts:
        assert rollout.patch == tasks[0].reference
        assert (rollout.well_formed, rollout.tokens, rollout.lost) == (True, 20, "")
        assert rollout.episode is not None
        assert rollout.episode.end is EpisodeEnd.SUBMITTED
        assert [step.tool for step in rollout.episode.steps] == ["search", "edit", "run_tests", "submit"]
        assert "I look." in rollout.completion
        assert "items[1]" in rollout.completion
    assert {request["seed"] for request in server.requests} == {3000, 3001, 3002}
    assert {request["temperature"] for request in server.requests} == {0.7}


BAD_CALLS = [
    {"id": None, "function": {"name": "edit", "arguments": '{"path": '}},
    "no call",
    {"function": "edit"},
    {"id": "x", "function": {"name": None, "arguments": 7}},
    {"id": "y", "function": {"name": "fly", "arguments": "{}"}},
    {"id": "z", "function": {"name": "edit", "arguments": '{"path": "\\ud800.py", "new": "\\ud800"}'}},
]


def test_what_a_server_would_refuse_in_a_chat_is_not_sent_back(tasks: list[Task], scorer: Scorer) -> None:
    """A call that cannot be read costs a step and is told; in the chat it stands so that any server accepts it."""
    bad = (200, {"choices": [{"message": {"content": "\0", "tool_calls": BAD_CALLS}}]})
    with serving(by_turn(bad, answer(("submit", "{}")))) as server:
        (rollout,) = played(quick(server.url), tasks[:1], scorer)
    assert rollout.episode is not None
    assert [step.is_mistake for step in rollout.episode.steps] == [True] * 6 + [False]
    asked, *results = server.requests[1]["messages"][2:]
    for call, result in zip(asked["tool_calls"], results, strict=True):
        assert result["tool_call_id"] == call["id"]
        assert isinstance(json.loads(call["function"]["arguments"]), dict)
        assert call["function"]["name"]
    assert "no JSON object" in results[0]["content"]


def test_floods_loops_and_endless_words_end_by_the_budget(tasks: list[Task], scorer: Scorer) -> None:
    flood = answer(*[("edit", json.dumps(FIX)), *[("diff", "{}")] * 5000], ("edit", "x" * 2_000_000))
    with serving(lambda _: flood) as server:
        (rollout,) = played(quick(server.url), tasks[:1], scorer, turns=10)
    assert rollout.episode is not None
    assert (rollout.episode.end, len(rollout.episode.steps)) == (EpisodeEnd.TURNS, 10)
    assert rollout.patch == tasks[0].reference
    assert len(server.requests) == 1

    with serving(lambda _: answer(("list_files", "{}"))) as server:
        (loops,) = played(quick(server.url), tasks[:1], scorer, turns=4)
        (talks,) = played(quick(server.url), tasks[:1], scorer, tokens=12)
    assert loops.episode is not None
    assert talks.episode is not None
    assert (loops.episode.end, len(loops.episode.steps)) == (EpisodeEnd.TURNS, 4)
    assert (talks.episode.end, len(talks.episode.steps), talks.tokens) == (EpisodeEnd.TOKENS, 2, 15)


def test_a_chat_that_grows_too_long_ends_with_its_tree(tasks: list[Task], scorer: Scorer) -> None:
    full = (400, {"error": {"message": "maximum context length is 4096 tokens"}})
    with serving(by_turn(answer(("edit", json.dumps(FIX))), full)) as server:
        (rollout,) = played(quick(server.url), tasks[:1], scorer)
    assert rollout.episode is not None
    assert rollout.episode.end is EpisodeEnd.TOKENS
    assert (rollout.patch, rollout.lost) == (tasks[0].reference, "")


def test_an_endpoint_that_dies_loses_attempts_and_the_next_run_repeats_only_these(
    tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    """A dead endpoint is no 0; the recorded attempts, with their episodes, are not made again."""
    is_down = threading.Event()
    is_down.set()
    work = by_turn(answer(("edit", json.dumps(FIX))), answer(("submit", "{}")))

    def serve(request: dict[str, Any]) -> Answer:
        if is_down.is_set() and "Counter" in request["messages"][1]["content"]:
            return 503, {"error": "down"}
        return work(request)

    with serving(serve) as server:
        file = tmp_path / "policies.toml"
        file.write_text(
            f'[[policy]]\nname = "agent"\nendpoint = "{server.url}"\nmodel = "m"\nturns = 5\ntest_runs = 2\ntries = 1\n'
        )
        (entrant,) = read_policies(file, tasks)
        loaded = entrant.load(tasks)
        assert isinstance(loaded, PolicyWithoutScorer)
        assert isinstance(loaded.with_scorer(scorer), TrialPolicy)
        assert entrant.spec["turns"] == 5
        judge = Judge(scorer=scorer, reward=passing, also=())
        with Run.started(tmp_path / "run") as run, run.writing():
            first = enter(run, entrant, Sweep(), [], tasks, judge)
            asked = len(server.requests)
            is_down.clear()
            second = enter(run, entrant, Sweep(), [], tasks, judge)
    first, second = first.set_index("task"), second.set_index("task")
    assert first["reward"].isna().to_dict() == {"second": False, "add": True}
    assert "503 down" in first["cause"]["add"]
    assert second["reward"].notna().all()
    assert second["reward"]["second"] == 1.0
    assert len(server.requests) == asked + 2, "only the lost attempt is repeated"


class NoDiskAtFirst:
    """The scorer of a machine whose disk is full at the first test run."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.has_failed = False

    def gather(self, jobs: Sequence[tuple[Task, Patch]], needs: Collection[type], **more: Any) -> list[EvidenceSet]:
        if not self.has_failed:
            self.has_failed = True
            return [EvidenceSet({}, dict.fromkeys(needs, "the disk is full")) for _ in jobs]
        return self.scorer.gather(jobs, needs, **more)


def test_an_agent_whose_tests_the_machine_could_not_run_is_unscored_and_repeated(
    tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    """It hands in a fix, which the machine could judge: but without its tests it may have worked otherwise."""
    turns = by_turn(answer(("run_tests", "{}")), answer(("edit", json.dumps(FIX))), answer(("submit", "{}")))
    source, rows = NoDiskAtFirst(scorer), tmp_path / "rows.jsonl"
    with serving(turns) as server:
        found = []
        for _ in range(2):
            (rollout,) = played(quick(server.url), tasks[:1], source, test_runs=2)  # type: ignore[arg-type]
            assert rollout.patch == tasks[0].reference
            (row,) = evaluate([rollout], tasks, scorer, passing, rows).to_dict("records")
            found.append(row)
    lost, scored = found
    assert (lost["status"], lost["patch_digest"]) == ("unscored", LOST)
    assert lost["cause"] == "the tests that the agent asked for could not be run: the disk is full"
    assert all(math.isnan(lost[name]) for name in ("broke", "clean_fix", "turns", "reward"))
    assert (scored["status"], scored["reward"], scored["turns"]) == ("scored", 1.0, 3)
    assert len(EpisodeFile(episodes_path(rows))) == 1


def test_a_stopped_evaluation_stops_its_agents(tasks: list[Task], scorer: Scorer) -> None:
    """One agent ends; closing the iterator then stops the others, which would go on for a long time."""

    def serve(request: dict[str, Any]) -> Answer:
        return answer(("submit" if request["seed"] == 0 else "list_files", "{}"))

    with serving(serve, seconds=0.02) as server:
        policy = EndpointAgentPolicy(quick(server.url, at_a_time=4), "m", scorer, EpisodeLimits(turns=100_000))
        rollouts = policy.propose(tasks[:1], [Sampling(1.0, 4)], seed=0)
        assert next(rollouts).sample == 0
        began = time.monotonic()
        rollouts.close()  # type: ignore[attr-defined]
        assert time.monotonic() - began < 5
        asked = len(server.requests)
        time.sleep(0.2)
        assert len(server.requests) <= asked


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("api = 'completions'\nturns = 3", "tools need the api 'chat'"),
        ("turns = 0", "turns"),
        ("test_runs = -1", "test_runs"),
    ],
)
def test_wrong_settings_of_an_agent_are_refused(tasks: list[Task], tmp_path: Path, settings: str, words: str) -> None:
    file = tmp_path / "policies.toml"
    file.write_text(f'[[policy]]\nendpoint = "http://localhost:1/v1"\nmodel = "m"\n{settings}\n')
    with pytest.raises(UserError, match=words):
        read_policies(file, tasks)


def test_a_checkpoint_that_was_trained_as_an_agent_is_evaluated_as_one(
    language_model: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    folder = language_model.save(tmp_path / "agent", AgentFormat(EpisodeLimits(turns=7)).files())
    file = tmp_path / "policies.toml"
    file.write_text('[[policy]]\nmodel = "agent"\n\n[[policy]]\nname = "short"\nmodel = "agent"\nturns = 2\n')
    turns = []
    for entrant in read_policies(file, tasks):
        loaded = entrant.load(tasks)
        assert isinstance(loaded, PolicyWithoutScorer)
        policy = loaded.with_scorer(scorer)
        assert isinstance(policy, AgentPolicy)
        turns.append(policy.format.limits.turns)
    assert turns == [7, 2]
    assert folder.is_dir()
