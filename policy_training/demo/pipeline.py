"""The main job, end to end: demonstrations are scarce, tests are plentiful.

1. SFT on the demonstrations (tasks with their reference fix), to its plateau: the baseline.
2. Expert iteration, then GRPO, on tasks of other functions, with their tests only: the candidate.
3. SFT continues on the demonstrations for the wall time of 2: the equal-time control.
4. SFT with all references: the upper bound.
5. A reward model from the executed attempts of 2.
6. Validation tasks select each policy's temperature; the verdict comes from packages without any training task.

Every phase stores its result, and a killed run resumes in the phase in which it was killed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Sampling
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.sweeps import GREEDY, Entrant, Judge, Stage, Sweep, choose_temperature, enter, record
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import PolicyRole, Run
from regrade.policy_training.demo.settings import DemoSettings
from regrade.policy_training.demo.tasks import DemoTasks, choose_tasks, informative_tasks
from regrade.policy_training.environments.attempts import Attempt, ScoredAnswer, read_attempts, write_attempts
from regrade.policy_training.policies.local_model import ModelPolicy, load_policy
from regrade.policy_training.policies.models import EMBEDDED, LanguageModel, load_model
from regrade.policy_training.policies.scripted import NO_OP, REFERENCE
from regrade.policy_training.reward_models.reward_model import train_and_test_reward_model
from regrade.policy_training.trainers.callbacks import Budget, StepLog
from regrade.policy_training.trainers.expert_iteration import ExpertIteration, shares
from regrade.policy_training.trainers.online import rates, train_online
from regrade.policy_training.trainers.sft import Plateau, answer_quality, demonstrations, train_sft
from regrade.rewards.builtin import default
from regrade.rewards.evidence import TestRun

ROLES: dict[str, tuple[PolicyRole, str]] = {
    "sft": ("baseline", "SFT"),
    "control": ("control", "SFT given equal time"),
    "rl": ("candidate", "SFT + expert iteration + GRPO"),
    "sft-all": ("upper bound", "SFT with all references"),
}

RL_PHASES = ("expert iteration", "grpo")


def run_demo(
    out: Path, settings: DemoSettings, seed: int, stage: Stage, *, sandbox: str = "auto", model: str = EMBEDDED
) -> Run:
    """Run the main job in `out`, or resume it.

    Raises:
        UserError: there is no network on the first run, no model or no sandbox, or `out` contains a run with other
            settings.
    """
    run = Run(out)
    demo = Demo(run, settings, seed, stage, model)
    demo.check_same()
    with run.writing(), Scorer(sandbox=sandbox) as scorer:
        demo.prepare(scorer)
        demo.sft()
        demo.expert_iteration(scorer)
        demo.grpo(scorer)
        demo.control()
        demo.upper_bound()
        demo.reward_model()
        demo.validate(scorer)
        demo.judge(scorer)
    return run


class Demo:
    """The phases of the main job on one run's folder; a finished phase is skipped."""

    def __init__(self, run: Run, settings: DemoSettings, seed: int, stage: Stage, model: str) -> None:
        self.run = run
        self.settings = settings
        self.seed = seed
        self.stage = stage
        self.model_name = model
        self.tasks: DemoTasks

    def check_same(self) -> None:
        """Raises UserError if the run was started with other settings."""
        configuration = {"settings": _plain(asdict(self.settings)), "seed": self.seed, "model": self.model_name}
        stored = self.run.manifest.configuration
        if stored and dict(stored) != configuration:
            changed = sorted(key for key in configuration if stored.get(key) != configuration[key])
            raise UserError(
                f"{self.run.folder} holds a run with other {' and '.join(changed)}: give another folder "
                "(`folder=FOLDER`), or delete this one"
            )
        self.run.update(configuration=configuration, seeds={"run": self.seed}, model=self.model_name)

    def prepare(self, scorer: Scorer) -> None:
        """Fetch the packages, create the test environment, convert the model, choose the tasks."""
        with self.run.phase("prepare"), self.stage("preparing") as report:
            report(0, 3)
            language_model = load_model(self.model_name)
            report(1, 3)
            self.tasks = choose_tasks(lambda split: load_tasks(split=split), language_model.encode, self.settings)
            report(2, 3)
            # One attempt creates the environment and starts the workers, so that no later phase includes that time.
            scorer.gather([(self.tasks.validation[0], Patch(""))], {TestRun}, reachable=True)
            report(3, 3)
        self.run.record_tasks(self.tasks.held_out)
        packages = " and ".join(sorted({task.repository for task in self.tasks.held_out}))
        self.run.note(f"The tasks are held out: nothing was trained on {packages}. Temperatures were chosen elsewhere.")
        self.run.update(inputs=self.tasks.digests(), sandbox=scorer.sandbox.name, assurance=scorer.assurance)

    # ------------------------------------------------------------ training

    def sft(self) -> None:
        """The baseline: SFT on the demonstrations, to its plateau on the validation tasks."""
        if self.run.finished("sft"):
            return
        examples, held = demonstrations(self.tasks.demonstrations), demonstrations(self.tasks.validation)
        with self.run.phase("sft"):
            language_model = load_model(self.model_name, to_train=True)
            plateau = Plateau(
                model=language_model.model,
                measure=lambda: answer_quality(language_model, held),
                every=self.settings.check_every,
            )
            with self.stage("SFT") as report:
                train_sft(
                    language_model,
                    examples,
                    self.settings.sft,
                    out=self.run.folder / "trainer",
                    budget=Budget(self.settings.sft_steps),
                    seed=self.seed,
                    plateau=plateau,
                    log=self._log("sft", report, self.settings.sft_steps),
                )
            for step, quality in plateau.history:
                self.run.log(
                    "sft-validation",
                    step,
                    0.0,
                    answer_probability=quality.probability,
                    exact_answers=quality.exact,
                    validation_loss=-quality.log_likelihood,
                )
            language_model.save(self.run.checkpoint("sft"))

    def expert_iteration(self, scorer: Scorer) -> None:
        """Rounds of sampling, execution, and training on the verified answers."""
        if self.run.finished("expert iteration"):
            return
        settings = self.settings
        with self.run.phase("expert iteration"):
            language_model = load_model(str(self.run.checkpoint("sft")), to_train=True)
            loop = ExpertIteration(demonstrations(self.tasks.demonstrations), settings.expert_iteration)
            dealt = shares(
                self.tasks.tests_only, max(1, len(self.tasks.tests_only) // settings.tasks_per_round), self.seed
            )
            for number in range(settings.rounds):
                self._round(loop, language_model, dealt[number % len(dealt)], scorer, number)
            language_model.save(self.run.checkpoint("expert-iteration"))

    def _round(
        self, loop: ExpertIteration, language_model: LanguageModel, tasks: Sequence[Task], scorer: Scorer, number: int
    ) -> None:
        phase, began = f"expert-iteration-{number + 1}", time.monotonic()
        with self.stage(f"expert iteration, round {number + 1}") as report:
            outcome = loop.round(
                language_model,
                tasks,
                scorer,
                out=self.run.folder / "trainer",
                budget=Budget(self.settings.round_steps),
                seed=self.seed * 1000 + number,
                log=self._log(phase, None, self.settings.round_steps),
                progress=lambda _what, done, total: report(done, total),
            )
        seconds = time.monotonic() - began
        self._store_attempts(outcome.attempts, number)
        self.run.log(
            "expert-iteration",
            number + 1,
            seconds,
            verified=len(outcome.verified),
            **rates(outcome.attempts),
            execution_seconds=outcome.spent.execution,
            generation_seconds=outcome.spent.generation,
            training_seconds=seconds - outcome.spent.execution - outcome.spent.generation,
        )

    def grpo(self, scorer: Scorer) -> None:
        """GRPO continues from expert iteration, on the tests-only tasks whose attempts had different rewards."""
        if self.run.finished("grpo"):
            return
        settings = self.settings
        with self.run.phase("grpo"), self.stage("GRPO") as report:
            language_model = load_model(str(self.run.checkpoint("expert-iteration")), to_train=True)
            per_generation = settings.grpo.prompts_per_step * settings.grpo.steps_per_generation
            tasks = informative_tasks(self.tasks.tests_only, self._stored_answers(), per_generation)
            train_online(
                language_model,
                tasks,
                scorer,
                settings.grpo,
                out=self.run.folder / "trainer",
                budget=Budget(settings.grpo_steps),
                seed=self.seed,
                log=self._log("grpo", report, settings.grpo_steps),
            )
            language_model.save(self.run.checkpoint("rl"))

    def control(self) -> None:
        """SFT continues on the demonstrations for the wall time of reinforcement learning."""
        seconds = sum(self.run.manifest.phases[name].seconds for name in RL_PHASES)
        self._more_sft("control", "SFT given equal time", self.tasks.demonstrations, Budget(seconds=seconds))

    def upper_bound(self) -> None:
        """SFT with the references of the tests-only tasks too, which learning from tests does not have."""
        everything = (*self.tasks.demonstrations, *self.tasks.tests_only)
        self._more_sft("sft-all", "SFT, all references", everything, Budget(self.settings.upper_bound_steps))

    def _more_sft(self, name: str, title: str, tasks: Sequence[Task], budget: Budget) -> None:
        if self.run.finished(name):
            return
        with self.run.phase(name), self.stage(title) as report:
            language_model = load_model(str(self.run.checkpoint("sft")), to_train=True)
            train_sft(
                language_model,
                demonstrations(tasks),
                self.settings.expert_iteration.sft,
                out=self.run.folder / "trainer",
                budget=budget,
                seed=self.seed + 1,
                log=self._log(name, report, budget.steps or 0),
            )
            language_model.save(self.run.checkpoint(name))

    def reward_model(self) -> None:
        """A reward model on pairs of executed answers, tested on attempts at held-out tasks."""
        if self.run.finished("reward model"):
            return
        with self.run.phase("reward model"), self.stage("reward model") as report:
            figures = train_and_test_reward_model(
                self.run.checkpoint("sft"),
                self._stored_answers(),
                self.settings.reward_model,
                out=self.run.checkpoint("reward-model"),
                budget=Budget(self.settings.reward_model_steps),
                seed=self.seed,
                log=self._log("reward-model", report, self.settings.reward_model_steps),
            )
            self.run.log("reward-model-test", 1, 0.0, **figures)

    # ------------------------------------------------------------ judging

    def validate(self, scorer: Scorer) -> None:
        """Choose each policy's temperature by clean fixes on the validation tasks."""
        tasks = self.tasks.validation
        for entrant in self._entrants():
            phase = f"validate {entrant.name}"
            if entrant.role == "upper bound":  # only for scale: its greedy answers suffice
                self.run.add_policy(entrant.name, entrant.role, best_temperature=GREEDY, label=entrant.label)
            elif not self.run.finished(phase):
                with self.run.phase(phase):
                    load = partial(entrant.load, tasks)
                    choose_temperature(self.run, entrant, load, self._sweep(), tasks, self._by(scorer))

    def judge(self, scorer: Scorer) -> None:
        """All policies on the held-out packages: greedily and at all temperatures, most at the best one."""
        tasks = self.tasks.held_out
        for entrant in self._entrants():
            name = entrant.name
            best = self.run.manifest.policies[name].best_temperature
            is_bound = entrant.role == "upper bound"
            samplings = [Sampling(GREEDY, 1)] if is_bound else self._sweep().for_judging(best)
            if not self.run.finished(f"evaluate {name}"):
                with self.run.phase(f"evaluate {name}"):
                    load, out = partial(entrant.load, tasks), self.run.evaluation(name)
                    record(entrant, load, tasks, samplings, self._by(scorer), out)
        self._scripted(NO_OP[0], "does nothing", scorer)
        self._scripted(REFERENCE, "applies the reference", scorer)

    def _scripted(self, name: str, label: str, scorer: Scorer) -> None:
        if self.run.finished(f"evaluate {name}"):
            return
        tasks = self.tasks.held_out[: self.settings.scripted]
        entrant = Entrant(name=name, role="scripted", load=partial(load_policy, name), label=label, is_fixed=True)
        with self.run.phase(f"evaluate {name}"):
            enter(self.run, entrant, self._sweep(), (), tasks, self._by(scorer))

    def _entrants(self) -> list[Entrant]:
        return [
            Entrant(name=name, role=role, load=partial(self._policy, name), label=label)
            for name, (role, label) in ROLES.items()
        ]

    def _policy(self, name: str, _tasks: Sequence[Task]) -> ModelPolicy:
        return ModelPolicy(load_model(str(self.run.checkpoint(name))), name)

    def _sweep(self) -> Sweep:
        """One attempt at each other temperature shows the trade-off between fixes and breakage."""
        settings = self.settings
        return Sweep(settings.temperatures, settings.held_out_samples, 1, settings.validation_samples, with_greedy=True)

    def _by(self, scorer: Scorer) -> Judge:
        return Judge(scorer=scorer, reward=default, seed=self.seed, stage=self.stage)

    # ------------------------------------------------------------ records

    def _log(self, phase: str, report: Callable[[int, int], None] | None, steps: int) -> StepLog:
        def log(step: int, seconds: float, numbers: Mapping[str, float]) -> None:
            if report is not None:
                report(step, max(step, steps) if steps else 0)  # a time budget has no number of steps
            parts = dict(numbers)
            if "execution_seconds" in parts and "step_time" in parts:
                busy = parts["execution_seconds"] + parts["generation_seconds"]
                parts["training_seconds"] = max(0.0, parts["step_time"] - busy)
            self.run.log(phase, step, seconds, **parts)

        return log

    def _store_attempts(self, attempts: Sequence[Attempt], number: int) -> None:
        """Store the attempts of a round, for the reward model and for readers."""
        write_attempts(self.run.folder / "attempts" / f"round-{number + 1}.jsonl", attempts)

    def _stored_answers(self) -> list[ScoredAnswer]:
        return [
            answer for path in sorted((self.run.folder / "attempts").glob("*.jsonl")) for answer in read_attempts(path)
        ]


def _plain(value: Any) -> Any:
    """The value after a round trip through JSON."""
    return json.loads(json.dumps(value))
