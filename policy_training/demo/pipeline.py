"""The main job, end to end: demonstrations are scarce, tests are plentiful.

1. SFT on few demonstrations (tasks with their reference fix), to its plateau: the policy of one turn.
2. SFT continues on traces of a scripted expert at the same tasks, which edits, tests, takes back and hands in; every
   trace is executed. The result is an agent: the baseline.
3. Expert iteration, then GRPO, with that agent on tasks of other functions, with their tests only: the candidate. An
   agent may run the tests of one file; the verdict comes from all.
4. SFT of the agent continues on the traces for the wall time of 3, on as many cores: the equal-time control.
5. SFT of one turn with all references: the upper bound.
6. A reward model from the executed attempts of 3.
7. Validation tasks select each policy's temperature; the verdict comes from packages without any training task.

Every phase stores its result, and a killed run goes on within the phase in which it was killed. What does not need each
other runs side by side (`PARTS`, `running.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Policy, Sampling
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.sweeps import GREEDY, Entrant, Judge, Stage, choose_temperature, enter, record
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.manifest import PolicyRole
from regrade.evaluators.storage.run import Run
from regrade.policy_training.demo.settings import DemoSettings
from regrade.policy_training.loading import load_policy
from regrade.policy_training.policies.models import load_model
from regrade.policy_training.policies.scripted import NO_OP, REFERENCE
from regrade.policy_training.policies.transcripts import Transcript
from regrade.policy_training.recipe.phases import Phases
from regrade.policy_training.recipe.sharing import take_parts
from regrade.policy_training.recipe.tasks import RecipeTasks, choose_tasks
from regrade.policy_training.reward_models.reward_model import NoPreferencesError, train_and_test_reward_model
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.sft import demonstrations
from regrade.rewards.builtin import default
from regrade.rewards.evidence import TestRun

ROLES: dict[str, tuple[PolicyRole, str]] = {
    "agent-sft": ("baseline", "SFT agent"),
    "control": ("control", "SFT agent given equal time"),
    "sft": ("control", "SFT of one turn"),
    "rl": ("candidate", "SFT agent + expert iteration + GRPO"),
    "sft-all": ("upper bound", "SFT of one turn with all references"),
}


class Demo:
    """The phases of the main job on one run's folder; a finished phase is skipped."""

    def __init__(self, run: Run, settings: DemoSettings, seed: int, stage: Stage, model: str, scorer: Scorer) -> None:
        self.run = run
        self.settings = settings
        self.seed = seed
        self.stage = stage
        self.model_name = model
        self.scorer = scorer
        self.once = Phases(run, settings, seed, stage, scorer)
        self.agent = Phases(run, settings, seed, stage, scorer, is_agent=True)
        self.tasks: RecipeTasks

    def work(self) -> None:
        """Run all phases, beside the other processes of this run."""
        with self.run.writing("prepare", wait=True):
            self.prepare()
        for _ in take_parts(
            PARTS,
            is_done=lambda part: all(map(self.run.finished, part.phases)),
            is_ready=lambda part: all(map(self.run.finished, part.needs)) and part.is_ready(self),
            lock=lambda part: self.run.writing(part.name),
            run=lambda part: part.run(self),
        ):
            pass

    def prepare(self) -> None:
        """Fetch the packages, create the test environment, convert the model, choose the tasks: in each process, of
        which the first one does the work."""
        with self.run.phase("prepare"), self.stage("preparing") as report:
            report(0, 3)
            language_model = load_model(self.model_name)
            report(1, 3)
            self.tasks = choose_tasks(
                lambda split: load_tasks(split=split),
                language_model.encode,
                self.settings,
                demonstrations=self.settings.demonstrations,
                tests_only=self.settings.tests_only,
            )
            report(2, 3)
            # One attempt creates the environment and starts the workers, so that no later phase includes that time.
            self.scorer.gather([(self.tasks.validation[0], Patch(""))], {TestRun}, reachable=True)
            report(3, 3)
        self.run.record_tasks(self.tasks.held_out)
        packages = " and ".join(sorted({task.repository for task in self.tasks.held_out}))
        self.run.note(f"The tasks are held out: nothing was trained on {packages}. Temperatures were chosen elsewhere.")
        settings = self.settings
        self.run.update(
            regime=f"Demonstrations are few, tests are plentiful: {settings.demonstrations} tasks with their fix, and "
            f"{settings.tests_only} tasks of other functions with their tests alone. Agents may run the tests of one "
            "file; the verdict comes from all tests."
        )
        self.run.update(inputs=self.tasks.digests(), sandbox=self.scorer.sandbox.name, assurance=self.scorer.assurance)
        for name, (role, label) in ROLES.items():  # in this order in all tables, whichever is judged first
            if name not in self.run.manifest.policies:
                self.run.add_policy(name, role, label=label)

    # ------------------------------------------------------------ training

    def sft(self) -> None:
        """SFT on the demonstrations, to its plateau on the validation tasks."""
        self.once.sft(self.model_name, self.tasks.demonstrations, self.tasks.validation)

    def traces(self) -> None:
        """Traces of the demonstrations and of the validation tasks, executed."""
        self._lessons()
        self._held()

    def agent_sft(self) -> None:
        """SFT continues on the traces, to its plateau."""
        self.agent.agent_sft(self.run.checkpoint("sft"), self._lessons(), self._held())

    def _lessons(self) -> list[Transcript]:
        return self.agent.traces("demonstrations", self.tasks.demonstrations)

    def _held(self) -> list[Transcript]:
        return self.agent.traces("validation", self.tasks.validation)

    def expert_iteration(self) -> None:
        """Rounds of sampling, execution, and training on the verified episodes of the agent."""
        self.agent.expert_iteration(self.run.checkpoint("agent-sft"), self._lessons(), self.tasks.tests_only)

    def grpo(self) -> None:
        """GRPO continues from expert iteration."""
        self.agent.grpo(self.tasks.tests_only)

    def control(self) -> None:
        """SFT of the agent continues on the traces for the wall time of reinforcement learning.

        It may begin when that begins, on other cores, and ends after it. Its learning rate falls to 0 over its time, as
        far as that is known: see `Phases.rl_seconds`.
        """
        self.agent.more_sft(
            "control",
            ROLES["control"][1],
            self.run.checkpoint("agent-sft"),
            self._lessons(),
            Budget(seconds=self.agent.rl_seconds),
        )

    def upper_bound(self) -> None:
        """SFT with the references of the tests-only tasks too, which learning from tests does not have."""
        lessons = demonstrations((*self.tasks.demonstrations, *self.tasks.tests_only))
        start, budget = self.run.checkpoint("sft"), Budget(self.settings.upper_bound_steps)
        self.once.more_sft("sft-all", ROLES["sft-all"][1], start, lessons, budget)

    def reward_model(self) -> None:
        """A reward model on pairs of executed answers, tested on attempts at held-out tasks."""
        with self.run.phase("reward model"), self.stage("reward model") as report:
            try:
                figures = train_and_test_reward_model(
                    self.run.checkpoint("sft"),
                    self.agent.stored_answers(),
                    self.settings.reward_model,
                    out=self.run.checkpoint("reward-model"),
                    budget=Budget(self.settings.reward_model_steps),
                    seed=self.seed,
                    log=self.once.log("reward-model", report, Budget(self.settings.reward_model_steps)),
                )
            except NoPreferencesError as error:  # possible in a very short run, and no other policy depends on it
                self.run.note(f"There is no reward model: {error}.")
            else:
                self.run.log("reward-model-test", 1, 0.0, **figures)

    # ------------------------------------------------------------ judging

    def judge(self, name: str) -> None:
        """Choose a policy's temperature by clean fixes on the validation tasks, and judge it on the held-out packages.

        The upper bound is only for scale: its greedy answers suffice.
        """
        role, label = ROLES[name]
        entrant = Entrant(name=name, role=role, load=partial(self._policy, name), label=label)
        if role != "upper bound" and not self.run.finished(f"validate {name}"):
            with self.run.phase(f"validate {name}"):
                load = partial(self._policy, name, self.tasks.validation)
                choose_temperature(self.run, entrant, load, self.settings.sweep, self.tasks.validation, self._by())
        best = self.run.manifest.policies[name].best_temperature
        samplings = [Sampling(best, 1 if best == GREEDY else self.settings.held_out_samples)]
        with self.run.phase(f"evaluate {name}"):
            load, out = partial(self._policy, name, self.tasks.held_out), self.run.evaluation(name)
            record(entrant, load, self.tasks.held_out, samplings, self._by(), out)

    def scripted(self) -> None:
        """The scripted controls."""
        self._scripted(NO_OP[0], "does nothing")
        self._scripted(REFERENCE, "applies the reference")

    def _scripted(self, name: str, label: str) -> None:
        if self.run.finished(f"evaluate {name}"):
            return
        tasks = self.tasks.held_out[: self.settings.scripted]
        entrant = Entrant(name=name, role="scripted", load=partial(load_policy, name), label=label, is_fixed=True)
        with self.run.phase(f"evaluate {name}"):
            enter(self.run, entrant, self.settings.sweep, (), tasks, self._by())

    def _policy(self, name: str, _tasks: Sequence[Task]) -> Policy:
        return load_policy(str(self.run.checkpoint(name)), scorer=self.scorer)

    def _by(self) -> Judge:
        return Judge(scorer=self.scorer, reward=default, seed=self.seed, stage=self.stage)


@dataclass(frozen=True)
class DemoPart:
    """Phases that one process runs."""

    name: str
    phases: tuple[str, ...]
    """It is done when they are finished."""
    needs: tuple[str, ...]
    """Phases that are finished before it starts."""
    run: Callable[[Demo], None]
    is_ready: Callable[[Demo], bool] = lambda _demo: True
    """Beyond `needs`."""


def _judging(name: str) -> DemoPart:
    phases = (f"evaluate {name}",) if ROLES[name][0] == "upper bound" else (f"validate {name}", f"evaluate {name}")
    needs = {"control": "control", "rl": "grpo"}.get(name, name)
    return DemoPart(f"judge {name}", phases, (needs,), partial(Demo.judge, name=name))


TRACES = ("traces demonstrations", "traces validation")
PARTS = (
    DemoPart("sft", ("sft",), (), Demo.sft),
    DemoPart("traces", TRACES, (), Demo.traces),
    DemoPart("agent-sft", ("agent-sft",), ("sft", *TRACES), Demo.agent_sft),
    DemoPart("expert iteration", ("expert iteration",), ("agent-sft",), Demo.expert_iteration),
    DemoPart("grpo", ("grpo",), ("expert iteration",), Demo.grpo),
    DemoPart("control", ("control",), ("agent-sft",), Demo.control, lambda demo: demo.agent.rl_has_begun()),
    _judging("control"),
    _judging("rl"),
    _judging("agent-sft"),
    DemoPart("sft-all", ("sft-all",), ("sft",), Demo.upper_bound),
    _judging("sft"),
    DemoPart("reward model", ("reward model",), ("expert iteration",), Demo.reward_model),
    _judging("sft-all"),
    DemoPart("scripted", (f"evaluate {NO_OP[0]}", f"evaluate {REFERENCE}"), (), Demo.scripted),
)
"""What a free process takes next: the first one that is ready. What takes longest, with all that waits for it, comes
first. The control comes after reinforcement learning, so it starts only where that runs in another process or is done.
"""
