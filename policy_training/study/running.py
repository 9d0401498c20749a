"""Runs the cells of a study; each is a run of its own, which a killed study resumes.

Several processes may work on one study: each takes the next cell that no other one is running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from shutil import rmtree

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Sampling
from regrade.datasets.sources import load_tasks
from regrade.evaluators.evaluation.sweeps import Entrant, Judge, Stage, choose_temperature, record
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.policy_training.loading import load_policy
from regrade.policy_training.policies.models import EMBEDDED, load_model
from regrade.policy_training.recipe.phases import Phases
from regrade.policy_training.recipe.sharing import has_finished, take_parts
from regrade.policy_training.recipe.tasks import RecipeTasks, choose_tasks
from regrade.policy_training.study.cells import FORMS, JUDGED, ROLES, Cell, cell_folder, chosen, grid
from regrade.policy_training.study.settings import StudySettings
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.sft import demonstrations
from regrade.rewards.builtin import default
from regrade.rewards.evidence import TestRun


def run_study(
    out: Path,
    settings: StudySettings,
    stage: Stage,
    *,
    cells: Sequence[str] = (),
    sandbox: str = "auto",
    workers: int | None = None,
    model: str = EMBEDDED,
    after_cell: Callable[[Cell], object] = lambda _cell: None,
) -> Run:
    """Run the cells of a study in `out` that are not done yet.

    Args:
        cells: patterns of names, such as `rl-d32-*`; the cells that they need are run too. Empty: all cells.
        workers: of the scorer. Default: None: one per core.
        after_cell: called when a cell is done.

    Raises:
        UserError: no cell matches a pattern, there is no model or no sandbox, or `out` contains a study with other
            settings.
    """
    wanted = chosen(grid(settings), cells)
    with Run.reserved(out, wait=True) as run:
        run.configure({"study": asdict(settings), "model": model})
        run.update(model=model)
    if not all(has_finished(cell_folder(out, cell), JUDGED) for cell in wanted):
        with Scorer(workers=workers, sandbox=sandbox) as scorer:
            study = Study(run, settings, stage, model, scorer)
            with run.writing(wait=True):
                study.prepare()
            for cell in study.run_cells(wanted):
                with run.writing(wait=True):
                    after_cell(cell)
    return run


class Study:
    """The cells of one study on its folder."""

    def __init__(self, run: Run, settings: StudySettings, stage: Stage, model: str, scorer: Scorer) -> None:
        self.run = run
        self.settings = settings
        self.stage = stage
        self.model_name = model
        self.scorer = scorer
        self.tasks: dict[int, RecipeTasks] = {}
        """Seed -> its tasks."""

    def prepare(self) -> None:
        """Fetch the packages, create the test environment, convert the model, choose the tasks of all seeds."""
        settings = self.settings
        with self.run.phase("prepare"), self.stage("preparing") as report:
            report(0, 2)
            encode = load_model(self.model_name).encode
            load = cache(lambda split: load_tasks(settings.source, split))
            for seed in settings.seeds:
                self.tasks[seed] = choose_tasks(
                    load,
                    encode,
                    settings,
                    demonstrations=max(settings.demonstrations),
                    tests_only=max(settings.tests_only),
                    seed=seed,
                )
            report(1, 2)
            # One attempt creates the environment and starts the workers, so that no cell's time includes that.
            validation = self.tasks[settings.seeds[0]].validation
            self.scorer.gather([(validation[0], Patch(""))], {TestRun}, reachable=True)
            report(2, 2)
        inputs = {
            f"{name}, seed {seed}": digest
            for seed, tasks in self.tasks.items()
            for name, digest in tasks.digests().items()
        }
        self.run.update(inputs=inputs, sandbox=self.scorer.sandbox.name, assurance=self.scorer.assurance)

    def run_cells(self, cells: Sequence[Cell]) -> Iterator[Cell]:
        """Run those that are not done, beside the other processes of this study. Yields each that it has run."""

        def is_done(cell: Cell) -> bool:
            return has_finished(cell_folder(self.run.folder, cell), JUDGED)

        return take_parts(
            cells,
            is_done=is_done,
            is_ready=lambda cell: all(map(is_done, cell.needs)),
            lock=lambda cell: Run.reserved(cell_folder(self.run.folder, cell)),
            run=self.run_cell,
        )

    def run_cell(self, cell: Cell) -> None:
        """Train and judge one policy; finished phases are skipped."""
        run, tasks = Run(cell_folder(self.run.folder, cell)), self.tasks[cell.seed]
        stage: Stage = lambda title: self.stage(f"{cell.name}: {title}")  # noqa: E731
        phases = Phases(run, self.settings, cell.seed, stage, self.scorer, is_agent=cell.is_agent)
        run.configure({"cell": asdict(cell), "study": asdict(self.settings), "model": self.model_name})
        run.record_tasks(tasks.held_out)
        run.update(
            model=self.model_name,
            seeds={"run": cell.seed},
            inputs=tasks.digests(),
            sandbox=self.scorer.sandbox.name,
            assurance=self.scorer.assurance,
        )
        checkpoint = self._trained(cell, run, phases, tasks)
        self._judge(cell, run, stage, checkpoint, tasks)

    def _trained(self, cell: Cell, run: Run, phases: Phases, tasks: RecipeTasks) -> Path:
        """The checkpoint of the cell."""
        shown, tested = tasks.demonstrations[: cell.demonstrations], tasks.tests_only[: cell.tests_only]
        if cell.start is None:
            phases.sft(self.model_name, shown, tasks.validation)
            return run.checkpoint("sft")
        before = Run.open(cell_folder(self.run.folder, cell.start))
        if cell.training == "sft":
            lessons, held = phases.traces("demonstrations", shown), phases.traces("validation", tasks.validation)
            phases.agent_sft(before.checkpoint("sft"), lessons, held)
            return run.checkpoint("agent-sft")
        start = before.checkpoint("agent-sft" if cell.is_agent else "sft")
        of_start = Phases(before, self.settings, cell.seed, self.stage, self.scorer, is_agent=cell.is_agent)
        lessons = of_start.traces("demonstrations", shown) if cell.is_agent else demonstrations(shown)
        if cell.timed_by is None:
            phases.expert_iteration(start, lessons, tested)
            phases.grpo(tested)
            rmtree(run.checkpoint("expert-iteration"), ignore_errors=True)  # half a gigabyte that nothing starts from
            return run.checkpoint("rl")
        timed = Run.open(cell_folder(self.run.folder, cell.timed_by))
        seconds = Phases(timed, self.settings, cell.seed, self.stage, self.scorer).rl_seconds()
        phases.more_sft("control", "SFT given equal time", start, lessons, Budget(seconds=seconds))
        return run.checkpoint("control")

    def _judge(self, cell: Cell, run: Run, stage: Stage, checkpoint: Path, tasks: RecipeTasks) -> None:
        if run.finished(JUDGED):
            return
        role, label = ROLES[cell.training]
        entrant = Entrant(
            name=cell.name,
            role=role,
            label=f"{label}, {FORMS[cell.is_agent]}",
            load=lambda _tasks: load_policy(str(checkpoint), scorer=self.scorer),
        )
        by = Judge(scorer=self.scorer, reward=default, seed=cell.seed, stage=stage)
        policy = cache(lambda: entrant.load(tasks.held_out))  # loaded at most once, and only if needed
        with run.phase(JUDGED):
            best = choose_temperature(run, entrant, policy, self.settings.sweep, tasks.validation, by)
            # Unlike a report of one run, curves need no other temperature.
            at_best = [Sampling(best, self.settings.held_out_samples)]
            record(entrant, policy, tasks.held_out, at_best, by, run.evaluation(cell.name))
        if cell.training == "control":
            rmtree(checkpoint, ignore_errors=True)
