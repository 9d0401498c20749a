"""Expert iteration (rejection-sampling fine-tuning): sample, execute, and train on the clean fixes.

An agent's episode is learned if its final patch is a clean fix, however it got there, but without its mistakes: so it
learns to take back what broke, from its own episodes in which it did. Such episodes are rare and cost several turns
each. Instead, an agent can answer once, and learn traces that are made of its fixes and failures
(`environments/fix_traces.py`).

Each round takes the next share of the tests-only tasks, so that the rounds cover every task. Later rounds also train on
the verified answers of earlier ones, and on demonstrations. References of tests-only tasks are never read.

Sources: Anthony et al. 1705.08439 (expert iteration); Singh et al. 2312.06585 (ReST-EM).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.plurals import counted
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.cascade.cascade import Cascade
from regrade.policy_training.environments.agent_policy import AgentFormat, AgentPolicy
from regrade.policy_training.environments.attempts import Attempt, gather, judge
from regrade.policy_training.environments.compact_episode import SUBMIT
from regrade.policy_training.environments.fix_traces import traces_of_fixes
from regrade.policy_training.environments.reward_components import numbers_of_round
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
from regrade.policy_training.policies.harmony import Harmony
from regrade.policy_training.policies.local_model import ModelPolicy
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.transcripts import Transcript
from regrade.policy_training.trainers.callbacks import Budget, StepLog
from regrade.policy_training.trainers.executed_tests import episode_rates, rates
from regrade.policy_training.trainers.resuming import ResumePoints
from regrade.policy_training.trainers.rounds import Round, read_round, write_round
from regrade.policy_training.trainers.settings import ExpertIterationSettings
from regrade.policy_training.trainers.sft import train_sft
from regrade.policy_training.trainers.stability import StabilityGuard
from regrade.policy_training.trainers.tracking import Tracker

SAMPLED = "sampled.jsonl"
"""The attempts of a round that is being collected."""


@dataclass
class ExpertIteration:
    """The state between rounds: the demonstrations, and the verified answers so far."""

    demonstrations: Sequence[Transcript]
    settings: ExpertIterationSettings = field(default_factory=ExpertIterationSettings)
    verified: list[Transcript] = field(default_factory=list)
    agent: AgentFormat | None = None
    """Of a policy that acts over several turns; None: it answers once."""
    cascade: Cascade | None = None
    """Judges the attempts in stages; None: all tests that a change can reach are run."""

    def round(
        self,
        language_model: LanguageModel,
        tasks: Sequence[Task],
        scorer: Scorer,
        *,
        out: Path,
        budget: Budget,
        seed: int,
        reward: TrainingReward = DEFAULT_TRAINING_REWARD,
        log: StepLog | None = None,
        guard: StabilityGuard | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        keep: Callable[[list[Attempt]], object] = lambda _attempts: None,
        resume: ResumePoints | None = None,
        track: Sequence[Tracker] = (),
    ) -> Round:
        """Sample attempts at `tasks`, then train the model in place on all verified answers and some demonstrations.

        Args:
            reward: of the attempts that it returns. An answer is learned if it is verified; among the verified answers
                of a task, the reward chooses.
            guard: of the training; see `train_sft`.
            keep: called with the attempts when all are executed.
            resume: when the training writes states into `out`. Then the attempts are written there too while they are
                sampled, and what was collected; a killed round goes on where it was. Default: None: it keeps nothing.
            track: trackers that get the metrics of the log too. Default: none.

        Raises:
            UserError: there is neither a verified answer nor a demonstration, or the model cannot answer once.
        """
        done = None if resume is None else read_round(out)
        if done is None:
            sampled = None if resume is None else out / SAMPLED
            done = self._collected(language_model, tasks, scorer, seed, reward, progress, sampled)
            keep(done.attempts)
            if resume is not None:
                write_round(out, done)
        (out / SAMPLED).unlink(missing_ok=True)  # the round's file replaces it
        self.verified.extend(done.verified)
        lesson, sft = self._lesson(seed), self.settings.sft
        if not lesson:
            raise UserError(
                f"none of the attempts at {counted(len(tasks), 'task')} is a clean fix, so there is nothing to learn: "
                "train by sft first, choose easier tasks, or make more attempts (`samples`)"
            )
        train_sft(
            language_model,
            lesson,
            sft,
            out=out,
            budget=budget,
            seed=seed,
            log=log,
            guard=guard,
            resume=resume,
            track=track,
        )
        return done

    def _collected(
        self,
        language_model: LanguageModel,
        tasks: Sequence[Task],
        scorer: Scorer,
        seed: int,
        reward: TrainingReward,
        progress: Callable[[str, int, int], None] | None,
        sampled: Path | None = None,
    ) -> Round:
        settings, name, policy = self.settings, "expert-iteration", None
        traces = settings.lessons == "traces" and self.agent is not None
        if traces and Harmony.of(language_model.tokenizer) is not None:
            raise UserError(
                "lessons is 'traces', but a model that speaks harmony answers by tool calls: use 'episodes'"
            )
        if self.agent is not None and not traces:
            policy = AgentPolicy(language_model, scorer, name, self.agent)
        sampler = policy or ModelPolicy(language_model, name)
        attempts, spent = gather(
            sampler,
            tasks,
            settings.sampling,
            seed,
            scorer,
            reward,
            progress,
            judged_by=judge if self.cascade is None else self.cascade.judge,
            stored=sampled,
        )
        of_traces: dict[str, float] = {}
        if traces and self.agent is not None:
            began = time.monotonic()
            told = None if progress is None else partial(progress, "tracing")
            made = traces_of_fixes(attempts, tasks, scorer, self.agent.limits, seed, told)
            new, of_traces = list(made.traces), made.figures()
            spent = replace(spent, execution=spent.execution + time.monotonic() - began)
        else:
            hands_in = self.agent is not None and self.agent.limits.turns > 1
            new = verified_examples(attempts, settings.answers_per_task, SUBMIT if hands_in else "")
        figures = {
            **rates(attempts),
            **episode_rates([attempt.rollout for attempt in attempts]),
            **numbers_of_round(attempts, reward),
            **of_traces,
            **({} if self.cascade is None else self.cascade.take_numbers()),
        }
        return Round(attempts, new, spent, None if policy is None else policy.times, figures)

    def take_over(self, out: Path) -> None:
        """The verified answers of a finished round of a killed process, which wrote them into `out`."""
        done = read_round(out)
        assert done is not None
        self.verified.extend(done.verified)

    def _lesson(self, seed: int) -> list[Transcript]:
        known = len(self.demonstrations)
        count = max(self.settings.sft.batch_size, round(min(self.settings.replay * len(self.verified), known)))
        replayed = random.Random(seed).sample(self.demonstrations, min(count, known))
        return [*self.verified, *replayed]


def verified_examples(attempts: Iterable[Attempt], per_task: int, submit: str = "") -> list[Transcript]:
    """The distinct verified episodes of each task, at most `per_task` per task.

    Those of the highest training value come first. Of equal ones come first those that tested what they handed in (an
    untested fix was lucky), then the shortest, then the most frequent. An episode that recovered from a mistake is
    rare: the best of these has the last place, if none is among the others.

    Args:
        submit: the action that hands in, which an agent's episode that did not do so learns as its last.
    """
    found: dict[str, dict[Transcript, list[Attempt]]] = {}
    for attempt in attempts:
        if attempt.verified:
            found.setdefault(attempt.rollout.task_id, {}).setdefault(_lesson_of(attempt, submit), []).append(attempt)
    return [transcript for lessons in found.values() for transcript in _best(lessons, per_task)]


def _lesson_of(attempt: Attempt, submit: str) -> Transcript:
    rollout = attempt.rollout
    if rollout.episode is None:
        return Transcript.of_answer(rollout.prompt, rollout.completion.strip())
    return Transcript.of_episode(rollout.prompt, rollout.episode, submit)


def _best(lessons: Mapping[Transcript, Sequence[Attempt]], count: int) -> list[Transcript]:
    def order(transcript: Transcript) -> tuple[float, bool, int, int, str]:
        attempts = lessons[transcript]
        value, episode = attempts[-1].reward, attempts[-1].rollout.episode
        is_untested = episode is not None and not episode.tested_before_the_end
        worst_first = math.inf if value is None else -value
        return worst_first, is_untested, len(transcript.turns), -len(attempts), transcript.completion

    ranked = sorted(lessons, key=order)
    chosen, others = ranked[:count], ranked[count:]
    recovered = [transcript for transcript in others if not all(turn.is_learned for turn in transcript.turns)]
    if count > 1 and recovered and all(turn.is_learned for transcript in chosen for turn in transcript.turns):
        chosen[-1] = recovered[0]
    return chosen


def shares(tasks: Sequence[Task], rounds: int, seed: int) -> list[list[Task]]:
    """The shuffled tasks in `rounds` disjoint shares."""
    shuffled = sorted(tasks, key=lambda task: task.id)
    random.Random(seed).shuffle(shuffled)
    return [shuffled[start::rounds] for start in range(rounds)]
