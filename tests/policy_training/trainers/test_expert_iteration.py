"""Expert iteration: only executed, verified answers are learned, and no reference is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.agent_tools import EpisodeLimits, RepositoryEnvironment
from regrade.policy_training.environments.attempts import Attempt, judge
from regrade.policy_training.environments.compact_episode import CompactEpisode
from regrade.policy_training.environments.fix_traces import traces_of_fixes
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.policies.transcripts import Transcript, Turn
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.expert_iteration import ExpertIteration, shares, verified_examples
from regrade.policy_training.trainers.settings import ExpertIterationSettings, SFTSettings
from regrade.policy_training.trainers.sft import answer_quality, demonstrations
from regrade.rewards.evidence import TestOutcome as Outcome
from regrade.rewards.evidence import TestRun as RunOfTests
from regrade.rewards.evidence import TestStatus as Status

MakeTask = Callable[[str], Task]


def attempt(task: str, completion: str, status: Status) -> Attempt:
    run = RunOfTests(outcomes={"target": Outcome(status)}, fail_to_pass=("target",), pass_to_pass=())
    return Attempt(
        Rollout(
            task_id=task,
            policy="p",
            temperature=1.0,
            sample=0,
            seed=0,
            patch=Patch("x"),
            prompt=f"prompt {task}",
            completion=completion,
        ),
        run,
        0.0,
    )


def test_verified_answers_are_distinct_and_the_frequent_ones_come_first() -> None:
    attempts = [
        attempt("a", "1 rare", Status.PASSED), attempt("a", "2 often", Status.PASSED),
        attempt("a", "2 often ", Status.PASSED), attempt("a", "3 wrong", Status.FAILED),
        attempt("a", "4 also rare", Status.PASSED), attempt("b", "1 x", Status.FAILED),
        Attempt(Rollout(task_id="b", policy="p", temperature=1.0, sample=0, seed=0, patch=Patch("x"), prompt="prompt b", completion="1 unscored"), None, None),
    ]  # fmt: skip
    assert verified_examples(attempts, per_task=2) == [
        Transcript.of_answer("prompt a", "2 often"),
        Transcript.of_answer("prompt a", "1 rare"),
    ]


def test_an_agents_episode_is_learned_without_its_mistakes_and_a_recovered_one_is_kept(
    tasks: list[Task], scorer: Scorer
) -> None:
    """Real episodes: one hands in untested, one tests, one overwrites its mistake, one takes it back, one fails."""
    second = tasks[0]
    environment = RepositoryEnvironment({"second": second}, scorer, EpisodeLimits(turns=12))

    def rollout(*lines: str) -> Rollout:
        compact = CompactEpisode(environment, "second")
        for line in lines:
            compact.act(line)
        episode = compact.episode()
        return Rollout(
            task_id="second", policy="p", temperature=1.0, sample=0, seed=0, patch=episode.patch,
            prompt=compact.prompt, episode=episode,
        )  # fmt: skip

    right, wrong = "4 return items[1]", "4 return items[0]"
    untested, tested, failed = rollout(right, "submit"), rollout(right, "test", "submit"), rollout(wrong, "submit")
    overwritten = rollout(wrong, "test", right, "test", "submit")
    taken_back = rollout("find nothing", "no action", wrong, "test", "undo", "undo", right, "test", "submit")
    rollouts = [taken_back, overwritten, untested, tested, failed]
    attempts = judge(rollouts, {"second": second}, scorer, DEFAULT_TRAINING_REWARD)
    assert [each.verified for each in attempts] == [True, True, True, True, False]
    best = verified_examples(attempts, per_task=4)
    assert [tuple(turn.action for turn in transcript.turns) for transcript in best] == [
        (right, "test", "submit"), (wrong, "test", right, "test", "submit"),
        ("find nothing", "no action", wrong, "test", "undo", "undo", right, "test", "submit"), (right, "submit"),
    ]  # fmt: skip
    masked = [[turn.action for turn in transcript.turns if not turn.is_learned] for transcript in best]
    assert masked == [[], [wrong], ["no action", wrong, "undo"], []]
    assert [len(transcript.turns) for transcript in verified_examples(attempts[:1] + attempts[2:], per_task=2)] == [
        3,
        9,
    ]
    assert [len(transcript.turns) for transcript in verified_examples(attempts, per_task=1)] == [3]


def test_what_led_to_nothing_is_left_out_and_an_agent_learns_to_hand_in(tasks: list[Task], scorer: Scorer) -> None:
    """Of refusals in a row the first stays; of an episode that ended by a limit, all up to its last change or test."""
    second = tasks[0]
    environment = RepositoryEnvironment({"second": second}, scorer, EpisodeLimits(turns=9))
    right = "4 return items[1]"

    def learned(*lines: str, submit: str = "submit") -> list[Turn]:
        compact = CompactEpisode(environment, "second")
        for line in lines:
            compact.act(line)
        transcript = Transcript.of_episode(compact.prompt, compact.episode(), submit)
        assert transcript.prompt == compact.prompt
        return list(transcript.turns)

    vain = Turn("4 return items[2]", "error: line 4 already reads so", is_learned=False)
    end = [Turn(right, "ok"), Turn("test", "passed"), Turn("submit")]
    assert learned(vain.action, "undo", "3 return None", right, "test", "submit") == [vain, *end]
    assert learned(right, "test", "find nothing", right, "undo it", "find x") == end
    assert learned(right, "find nothing") == [Turn(right, "ok"), Turn("submit")]
    assert learned(right, "find nothing", submit="") == [Turn(right)]
    nothing = [Turn("find nowhere", "no line matches"), Turn("find items[", is_learned=False)]
    assert learned("find nowhere", "find items[") == nothing


def test_answers_become_traces_that_test_and_take_back_their_own_failures(tasks: list[Task], scorer: Scorer) -> None:
    """Of real answers: the most frequent of the clean fixes is the expert's, and only what failed is its mistake."""
    second = tasks[0].without_reference()
    right, rare, wrong, vain = (
        "4 return items[1]",
        "4 return items[1] if items else None",
        "4 return 7",
        "4 return items[2]",
    )
    rollouts = [_answered(second, line) for line in (rare, right, wrong, right, vain, "no answer")]
    attempts = judge(rollouts, {"second": second}, scorer, DEFAULT_TRAINING_REWARD)
    assert [each.verified for each in attempts] == [True, True, False, True, False, False]
    limits = EpisodeLimits(turns=7, test_runs=2)
    made = traces_of_fixes(attempts, [second], scorer, limits, seed=0)
    straight, recovered, refused = made.traces
    assert [turn.action for turn in straight.turns] == [right, "test", "submit"]
    assert [turn.action for turn in recovered.turns] == [wrong, "test", "undo", right, "test", "submit"]
    assert [turn.is_learned for turn in recovered.turns] == [False, True, True, True, True, True]
    assert [turn.action for turn in refused.turns][-3:] == [right, "test", "submit"]
    counts = ("traces/fixes", "traces/fixes_without_trace", "traces/made", "traces/left_out")
    assert made.figures() == dict(zip(counts, (1, 0, 3, 0), strict=True))
    nothing = traces_of_fixes(attempts[2:3], [second], scorer, limits, seed=0)
    assert (nothing.traces, nothing.figures()) == ([], dict.fromkeys(counts, 0))


def test_a_fix_without_a_trace_is_counted_with_the_reason(tasks: list[Task], scorer: Scorer) -> None:
    """A fix that adds a line is verified, but an agent's one-line actions cannot write it."""
    second = tasks[0].without_reference()
    before = second.base.read("library.py")
    after = before.replace("    return items[2]", "    first, found = items[0], items[1]\n    return found")
    patch = Patch.between({"library.py": before}, {"library.py": after})
    rollout = replace(_answered(second, "4 return items[1]"), patch=patch)
    attempts = judge([rollout], {"second": second}, scorer, DEFAULT_TRAINING_REWARD)
    assert attempts[0].verified
    made = traces_of_fixes(attempts, [second], scorer, EpisodeLimits(turns=7, test_runs=2), seed=0)
    assert (made.traces, made.untraced) == ([], ["second"])
    assert (made.figures()["traces/fixes"], made.figures()["traces/fixes_without_trace"]) == (1, 1)
    assert "the format cannot express the reference" in made.left_out["second"]


def _answered(task: Task, line: str) -> Rollout:
    prompt = prompt_of(task)
    patch = prompt.patch(line)
    return Rollout(
        task_id=task.id, policy="p", temperature=1.0, sample=0, seed=0, patch=patch or Patch(""), prompt=prompt.text,
        completion=line, well_formed=patch is not None,
    )  # fmt: skip


def test_shares_deal_out_every_task_once(make_task: MakeTask) -> None:
    tasks = [replace(make_task("second"), id=f"task{k}") for k in range(7)]
    dealt = shares(tasks, 3, seed=0)
    assert sorted(len(share) for share in dealt) == [2, 2, 3]
    assert sorted(task.id for share in dealt for task in share) == [task.id for task in tasks]
    assert shares(tasks[::-1], 3, seed=0) == dealt


@pytest.mark.slow
def test_a_round_teaches_what_the_tests_verified(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    """No reference is given; what is learned are the reference's own answers, found by trying."""
    settings = ExpertIterationSettings(sampling=Sampling(1.0, 12), sft=SFTSettings(learning_rate=3e-3))
    loop = ExpertIteration([], settings)
    before = {example: answer_quality(undecided, [example]).log_likelihood for example in demonstrations(tasks)}
    hidden = [task.without_reference() for task in tasks]
    found = loop.round(undecided, hidden, scorer, out=tmp_path, budget=Budget(steps=10), seed=0)
    assert len(found.attempts) == 24
    assert found.verified
    assert loop.verified == found.verified
    assert set(found.verified) <= before.keys()
    for example in found.verified:
        assert answer_quality(undecided, [example]).log_likelihood > 0.7 * before[example]


def test_a_round_without_a_clean_fix_says_so(
    language_model: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    """A random policy fixes nothing; references are no advice, as this algorithm reads none."""
    loop = ExpertIteration([], ExpertIterationSettings(sampling=Sampling(1.0, 1)))
    with pytest.raises(UserError, match="none of the attempts at 2 tasks is a clean fix, so there is nothing to learn"):
        loop.round(language_model, tasks, scorer, out=tmp_path, budget=Budget(steps=1), seed=0)


def test_any_replay_ends_at_the_demonstrations(tasks: list[Task]) -> None:
    known = demonstrations(tasks)
    for replay in (0.0, 1e308):
        loop = ExpertIteration(known, ExpertIterationSettings(replay=replay), verified=known * 5)
        assert loop._lesson(seed=0)[10:] in ([*known], [*reversed(known)])


@pytest.mark.slow
def test_an_agent_learns_traces_of_what_it_found_in_one_turn(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    settings = ExpertIterationSettings(
        sampling=Sampling(1.0, 12), lessons="traces", sft=SFTSettings(learning_rate=3e-3)
    )
    loop = ExpertIteration([], settings, agent=AgentFormat(EpisodeLimits(turns=6, test_runs=2)))
    hidden = [task.without_reference() for task in tasks]
    found = loop.round(undecided, hidden, scorer, out=tmp_path, budget=Budget(steps=10), seed=0)
    assert all(attempt.rollout.episode is None for attempt in found.attempts)
    fixed = {attempt.rollout.completion for attempt in found.attempts if attempt.verified}
    assert fixed
    for trace in found.verified:
        assert trace.turns[-1].action == "submit"
        assert trace.turns[-3].action in fixed
        unlearned = {turn.action for turn in trace.turns if not turn.is_learned}
        assert not unlearned & fixed
