"""The phases of the recipe on one run's folder. A finished phase is skipped, and a killed one goes on from its last
state (`trainers/resuming.py`), expert iteration in its last round.

One turn: SFT, expert iteration, GRPO. Agents: SFT, SFT on executed traces of the same demonstrations, and the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.sweeps import Stage
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.journal import read
from regrade.evaluators.storage.manifest import Phase
from regrade.evaluators.storage.run import HEARTBEAT_SECONDS, Run
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.attempts import Attempt, ScoredAnswer, read_attempts, write_attempts
from regrade.policy_training.environments.demonstration_files import write_demonstrations
from regrade.policy_training.environments.demonstrations import Demonstrator, transcript_of
from regrade.policy_training.policies.models import LanguageModel, load_model
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.policies.transcripts import Transcript
from regrade.policy_training.recipe.settings import AGENT, Recipe
from regrade.policy_training.recipe.tasks import informative_tasks
from regrade.policy_training.trainers.callbacks import Budget, StepLog
from regrade.policy_training.trainers.expert_iteration import ExpertIteration, shares
from regrade.policy_training.trainers.online import train_online
from regrade.policy_training.trainers.resuming import ResumePoints, last_step, remove_states
from regrade.policy_training.trainers.settings import SFTSettings
from regrade.policy_training.trainers.sft import Plateau, answer_quality, demonstrations, train_sft

RL_PHASES = ("expert iteration", "grpo")
AFTER_ROUND = "model"
"""Where a round of expert iteration leaves its weights for the next one, in the folder of its states."""


class Phases:
    """SFT, expert iteration, GRPO, and more SFT, of a policy that answers once or of an agent."""

    def __init__(
        self, run: Run, settings: Recipe, seed: int, stage: Stage, scorer: Scorer, *, is_agent: bool = False
    ) -> None:
        self.run = run
        self.settings = settings
        self.seed = seed
        self.stage = stage
        self.scorer = scorer
        self.agent = agent_format(settings) if is_agent else None
        self.resume = ResumePoints()

    def rl_has_begun(self) -> bool:
        """Has reinforcement learning begun, in any process?"""
        return RL_PHASES[0] in self.run.manifest.phases

    def rl_seconds(self) -> float:
        """Wall time of reinforcement learning.

        Before the end of its first round it is infinite, and until its own end an estimate above the time so far: GRPO
        takes as long as a round; once it has begun, its further steps take as long as those so far.
        """
        phases = self.run.manifest.phases
        before, grpo = (phases.get(name, Phase()) for name in RL_PHASES)
        if grpo.done:
            return before.seconds + grpo.seconds
        rounds = [row["seconds"] for row in read(self.run.training_log("expert-iteration"))]
        if not rounds:
            return math.inf
        per_round = sum(rounds) / len(rounds)
        steps = max((row["step"] for row in read(self.run.training_log("grpo"))), default=0)
        further = grpo.seconds * self.settings.grpo_steps / steps if steps else per_round
        whole = before.seconds if before.done else per_round * self.settings.rounds
        # The manifest's times are this much behind at most.
        return max(whole + further, before.seconds + grpo.seconds + 2 * HEARTBEAT_SECONDS)

    def sft(self, model: str, tasks: Sequence[Task], validation: Sequence[Task]) -> None:
        """SFT on the references of `tasks`, to its plateau on the validation tasks: the checkpoint `sft`."""
        settings = self.settings
        lessons, held = demonstrations(tasks), demonstrations(validation)
        self._to_plateau("sft", "SFT", model, lessons, held, settings.sft, settings.sft_steps)

    def traces(self, name: str, tasks: Sequence[Task]) -> list[Transcript]:
        """Executed traces of the references of `tasks`, with and without mistakes; `name` is that of their file."""
        path, phase = self.run.folder / f"{name}.jsonl", f"traces {name}"
        if not self.run.finished(phase):
            demonstrator = Demonstrator(tasks, self.scorer, agent_format(self.settings).limits, seed=self.seed)
            began = time.monotonic()
            with self.run.phase(phase), self.stage(f"executing {name}") as report:
                made = write_demonstrations(demonstrator, path, report)
                counts = {"traces": made.traces, "with_mistakes": made.with_mistakes, "left_out": len(made.left_out)}
                self.run.log(phase, 1, time.monotonic() - began, **counts)
        return [transcript_of(row) for row in read(path)]

    def agent_sft(self, start: Path, lessons: Sequence[Transcript], held: Sequence[Transcript]) -> None:
        """SFT continues on traces, to its plateau on those of the validation tasks: the checkpoint `agent-sft`."""
        settings = self.settings
        self._to_plateau(
            "agent-sft", "SFT of the agent", str(start), lessons, held, settings.agent_sft, settings.agent_sft_steps
        )

    def _to_plateau(
        self,
        name: str,
        title: str,
        model: str,
        lessons: Sequence[Transcript],
        held: Sequence[Transcript],
        settings: SFTSettings,
        steps: int,
    ) -> None:
        if self.run.finished(name):
            return self._leave(name)
        with self.run.phase(name):
            language_model = load_model(model, to_train=True)
            plateau = Plateau(
                model=language_model.model,
                measure=lambda: answer_quality(language_model, held),
                every=self.settings.check_every,
            )
            with self.stage(title) as report:
                train_sft(
                    language_model,
                    lessons,
                    settings,
                    out=self.states(name),
                    budget=Budget(steps),
                    seed=self.seed,
                    plateau=plateau,
                    log=self.log(name, report, Budget(steps)),
                    resume=self.resume,
                )
            self.run.rewind(f"{name}-validation")
            for step, quality in plateau.history:
                self.run.log(
                    f"{name}-validation",
                    step,
                    0.0,
                    answer_probability=quality.probability,
                    exact_answers=quality.exact,
                    validation_loss=-quality.log_likelihood,
                )
            self._save(language_model, name)
        return self._leave(name)

    def states(self, name: str) -> Path:
        """Where the training `name` keeps the states from which it goes on."""
        return self.run.folder / "trainer" / name

    def _leave(self, *names: str) -> None:
        """Remove what finished trainings would have gone on from: twelve bytes per weight and more."""
        for name in names:
            rmtree(self.states(name), ignore_errors=True)

    def _save(self, language_model: LanguageModel, name: str) -> None:
        files = {} if self.agent is None else self.agent.files()
        language_model.save(self.run.checkpoint(name), files)

    def expert_iteration(self, start: Path, lessons: Sequence[Transcript], tests_only: Sequence[Task]) -> None:
        """Rounds of sampling, execution, and training on the verified answers: the checkpoint `expert-iteration`.

        Args:
            lessons: demonstrations, of which each round repeats some.
        """
        settings = self.settings
        rounds = [f"expert-iteration-{number + 1}" for number in range(settings.rounds)]
        if self.run.finished("expert iteration"):
            return self._leave(*rounds)
        with self.run.phase("expert iteration"):
            left = [number for number, name in enumerate(rounds, 1) if (self.states(name) / AFTER_ROUND).is_dir()]
            done = max(left, default=0)
            where = self.states(rounds[done - 1]) / AFTER_ROUND if done else start
            language_model = load_model(str(where), to_train=True)
            loop = ExpertIteration(lessons, settings.expert_iteration, agent=self.agent)
            for name in rounds[:done]:
                loop.take_over(self.states(name))
            self.run.rewind("expert-iteration", done)
            dealt = shares(tests_only, min(settings.task_shares, len(tests_only)), self.seed)
            for number in range(done, settings.rounds):
                self._round(loop, language_model, dealt[number % len(dealt)], number)
            self._save(language_model, "expert-iteration")
        return self._leave(*rounds)

    def _round(self, loop: ExpertIteration, language_model: LanguageModel, tasks: Sequence[Task], number: int) -> None:
        phase, began = f"expert-iteration-{number + 1}", time.monotonic()
        stored = self.run.folder / "attempts" / f"round-{number + 1}.jsonl"
        with self.stage(f"expert iteration, round {number + 1}") as report:
            outcome = loop.round(
                language_model,
                tasks,
                self.scorer,
                out=self.states(phase),
                budget=Budget(self.settings.round_steps),
                seed=self.seed * 1000 + number,
                log=self.log(phase, None, Budget(self.settings.round_steps)),
                progress=lambda _what, done, total: report(done, total),
                keep=lambda attempts: write_attempts(stored, as_answers(attempts, tasks)),
                resume=self.resume,
            )
        seconds = time.monotonic() - began
        waited = {} if outcome.sampling is None else {"waited_seconds": outcome.sampling.waited_seconds}
        self.run.log(
            "expert-iteration",
            number + 1,
            seconds,
            verified=len(outcome.verified),
            **outcome.figures,
            **waited,
            execution_seconds=outcome.spent.execution,
            generation_seconds=outcome.spent.generation,
            training_seconds=max(0.0, seconds - outcome.spent.execution - outcome.spent.generation),
        )
        language_model.save(self.states(phase) / AFTER_ROUND)
        remove_states(self.states(phase))
        self._leave_model_of(number)

    def _leave_model_of(self, number: int) -> None:
        """Of the round before, from which nothing starts any more."""
        rmtree(self.states(f"expert-iteration-{number}") / AFTER_ROUND, ignore_errors=True)

    def grpo(self, tests_only: Sequence[Task]) -> None:
        """GRPO continues from expert iteration, on the tests-only tasks whose attempts had different rewards: the
        checkpoint `rl`."""
        if self.run.finished("grpo"):
            return self._leave("grpo")
        settings, grpo, paid = self.settings, self.settings.grpo, self.settings.grpo_step_rewards
        if self.agent is None:  # a single action has no steps to tell apart
            grpo, paid = replace(grpo, credit="trajectory"), None
        with self.run.phase("grpo"), self.stage("GRPO") as report:
            language_model = load_model(str(self.run.checkpoint("expert-iteration")), to_train=True)
            per_generation = grpo.prompts_per_step * grpo.steps_per_generation
            train_online(
                language_model,
                informative_tasks(tests_only, self.stored_answers(), per_generation),
                self.scorer,
                grpo,
                out=self.states("grpo"),
                budget=Budget(settings.grpo_steps),
                seed=self.seed,
                agent=self.agent,
                step_rewards=paid,
                log=self.log("grpo", report, Budget(settings.grpo_steps)),
                resume=self.resume,
            )
            self._save(language_model, "rl")
        return self._leave("grpo")

    def more_sft(self, name: str, title: str, start: Path, lessons: Sequence[Transcript], budget: Budget) -> None:
        """SFT continues from a checkpoint: the checkpoint `name`."""
        if self.run.finished(name):
            return self._leave(name)
        with self.run.phase(name), self.stage(title) as report:
            language_model = load_model(str(start), to_train=True)
            train_sft(
                language_model,
                lessons,
                self.settings.expert_iteration.sft,
                out=self.states(name),
                budget=budget,
                seed=self.seed + 1,
                log=self.log(name, report, budget),
                resume=self.resume,
            )
            self._save(language_model, name)
        return self._leave(name)

    def log(self, phase: str, report: Callable[[int, int], None] | None, budget: Budget) -> StepLog:
        """Writes each step into the run's training log, which first loses what follows the state to go on from."""
        self.run.rewind(phase, last_step(self.states(phase)))

        def log(step: int, seconds: float, numbers: Mapping[str, float]) -> None:
            if report is not None:
                report(*budget.progress(step, seconds))
            parts = dict(numbers)
            if "execution_seconds" in parts and "step_time" in parts:
                busy = parts["execution_seconds"] + parts["generation_seconds"]
                parts["training_seconds"] = max(0.0, parts["step_time"] - busy)
            self.run.log(phase, step, seconds, **parts)

        return log

    def stored_answers(self) -> list[ScoredAnswer]:
        """The executed attempts of expert iteration."""
        return [
            answer for path in sorted((self.run.folder / "attempts").glob("*.jsonl")) for answer in read_attempts(path)
        ]


def agent_format(settings: Recipe) -> AgentFormat:
    """How the recipe's agents work."""
    limits = replace(AGENT.limits, turns=settings.turns, test_runs=settings.test_runs)
    return AgentFormat(limits, max_tokens=settings.episode_tokens)


def as_answers(attempts: Sequence[Attempt], tasks: Sequence[Task]) -> list[Attempt]:
    """The attempts; an agent's with the answer of one turn that makes its final patch, if there is one.

    A reward model scores answers, whoever gave them.
    """
    prompts = {task.id: prompt_of(task.without_reference()) for task in tasks}
    answered = []
    for attempt in attempts:
        rollout = attempt.rollout
        if rollout.episode is not None:
            answer = prompts[rollout.task_id].answer_of(rollout.patch) or rollout.completion
            rollout = replace(rollout, completion=answer)
        answered.append(replace(attempt, rollout=rollout))
    return answered
