"""Runs variants on one folder: the start of each seed, then a training and a verdict per variant.

A killed process goes on where it stopped, and several may work on one folder (see `take_parts`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path
from shutil import rmtree
from typing import Any

from regrade.datasets.errors import UnstableTrainingError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Sampling
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.sweeps import Entrant, Judge, Stage, record
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.policy_training.environments.attempts import gather, read_attempts, write_attempts
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD
from regrade.policy_training.loading import load_policy
from regrade.policy_training.policies.local_model import ModelPolicy
from regrade.policy_training.policies.models import EMBEDDED, load_model
from regrade.policy_training.recipe.phases import Phases
from regrade.policy_training.recipe.sharing import take_parts
from regrade.policy_training.recipe.tasks import RecipeTasks, choose_tasks, informative_tasks
from regrade.policy_training.train import train
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.sft import demonstrations
from regrade.policy_training.training_plan import TrainingPlan
from regrade.policy_training.variants.settings import (
    JUDGED,
    SURVEYED,
    TRAINED,
    Variant,
    VariantJob,
    VariantSettings,
    jobs_of,
    needs_of,
    start_folder,
    training_folder,
    variant_folder,
)
from regrade.rewards.builtin import default
from regrade.rewards.evidence import TestRun

SURVEY = "survey.jsonl"
"""The executed answers of the start, in its run."""
RL_PHASES = ("expert iteration", SURVEYED)
"""Of a start's run: what comes after SFT."""


def run_variants(
    out: Path,
    variants: Mapping[str, Variant],
    names: Sequence[str],
    seeds: Sequence[int],
    settings: VariantSettings,
    stage: Stage,
    *,
    model: str = EMBEDDED,
    sandbox: str = "auto",
    keeps_checkpoints: bool = False,
    after_job: Callable[[VariantJob], object] = lambda _job: None,
) -> None:
    """Train and judge what `out` lacks. Variants, seeds and processes may be added later.

    Args:
        variants: name -> variant; see `named`.
        names: of the variants to run; those whose time they take are run too.
        keeps_checkpoints: of the variants, half a gigabyte each. Default: False: those of the starts alone.
        after_job: called when this process has done a job.

    Raises:
        UserError: there is no model or no sandbox, or `out` contains other settings, or another variant of a name.
    """
    jobs = jobs_of(variants, names, seeds)
    with Run.reserved(out, wait=True) as run:
        run.configure({"sizes": asdict(settings), "model": model})
    done = [job for job in jobs if job.is_done(out)]
    for job in done:
        if job.variant:  # another variant of this name is refused
            Run.open(job.folder(out)).configure(_configuration(variants[job.variant], settings, model))
    if len(done) == len(jobs):
        return
    with Scorer(sandbox=sandbox) as scorer:
        runs = VariantRuns(out, variants, settings, stage, model, scorer, keeps_checkpoints=keeps_checkpoints)
        with run.writing(wait=True):
            runs.prepare(seeds)
        for job in runs.work(jobs):
            after_job(job)


def _configuration(variant: Variant, settings: VariantSettings, model: str) -> dict[str, Any]:
    return {"variant": variant.to_json(), "sizes": asdict(settings), "model": model}


class VariantRuns:
    """The jobs of one folder."""

    def __init__(
        self,
        out: Path,
        variants: Mapping[str, Variant],
        settings: VariantSettings,
        stage: Stage,
        model: str,
        scorer: Scorer,
        *,
        keeps_checkpoints: bool = False,
    ) -> None:
        self.out = out
        self.variants = variants
        self.settings = settings
        self.stage = stage
        self.model = model
        self.scorer = scorer
        self.keeps_checkpoints = keeps_checkpoints
        self._tasks: dict[int, RecipeTasks] = {}

    def work(self, jobs: Sequence[VariantJob]) -> Iterator[VariantJob]:
        """Do those that are not done and that no other process does. Yields each that this process has done."""
        return take_parts(
            jobs,
            is_done=lambda job: job.is_done(self.out),
            is_ready=lambda job: all(needed.is_done(self.out) for needed in needs_of(job, self.variants)),
            lock=lambda job: Run.reserved(job.folder(self.out)),
            run=lambda job: self._run_variant(job) if job.variant else self._make_start(job),
        )

    def prepare(self, seeds: Sequence[int]) -> None:
        """Fetch the packages, convert the model, choose the tasks, and create the test environment: once for all
        processes, and in no variant's time."""
        with self.stage("preparing"):
            tasks = [self.tasks(seed) for seed in seeds]
            self.scorer.gather([(tasks[0].validation[0], Patch(""))], {TestRun}, reachable=True)

    # ------------------------------------------------------------ the start

    @cached_property
    def _encode(self) -> Callable[[str], list[int]]:
        return load_model(self.model).encode

    def tasks(self, seed: int) -> RecipeTasks:
        if seed not in self._tasks:
            settings = self.settings
            self._tasks[seed] = choose_tasks(
                cache(lambda split: load_tasks(split=split)),
                self._encode,
                settings,
                demonstrations=settings.demonstrations,
                tests_only=settings.tests_only + settings.surveyed,
                seed=seed,
            )
        return self._tasks[seed]

    def _make_start(self, job: VariantJob) -> None:
        """SFT, expert iteration, and a survey of the tasks that the policy sometimes fixes, all for one seed."""
        settings, seed, tasks, run = self.settings, job.seed, self.tasks(job.seed), Run(job.folder(self.out))
        run.update(model=self.model, seeds={"run": seed}, inputs=tasks.digests(), assurance=self.scorer.assurance)
        phases = Phases(run, settings, seed, self._titled(f"start, seed {seed}"), self.scorer)
        phases.sft(self.model, tasks.demonstrations, tasks.validation)
        lessons, share = demonstrations(tasks.demonstrations), tasks.tests_only[: settings.tests_only]
        phases.expert_iteration(run.checkpoint("sft"), lessons, share)
        with run.phase(SURVEYED), phases.stage("survey") as report:
            began = time.monotonic()
            policy = ModelPolicy(load_model(str(run.checkpoint("expert-iteration"))), "start")
            attempts, _ = gather(
                policy,
                tasks.tests_only[settings.tests_only :],
                Sampling(1.0, settings.survey_samples),
                seed,
                self.scorer,
                DEFAULT_TRAINING_REWARD,
                lambda _what, done, total: report(done, total),
            )
            write_attempts(run.folder / SURVEY, attempts)
            chosen = self._trained_on(seed)
            run.log(SURVEYED, 1, time.monotonic() - began, tasks=len(chosen), attempts=len(attempts))

    def _trained_on(self, seed: int) -> list[Task]:
        """The tasks of all trainings of a seed."""
        answers = read_attempts(start_folder(self.out, seed) / SURVEY)
        surveyed = self.tasks(seed).tests_only[self.settings.tests_only :]
        return informative_tasks(surveyed, answers, self.settings.least_tasks)

    # ------------------------------------------------------------ a variant

    def _run_variant(self, job: VariantJob) -> None:
        variant, run = self.variants[job.variant], Run(job.folder(self.out))
        stage = self._titled(f"{variant.name}, seed {job.seed}")
        run.configure(_configuration(variant, self.settings, self.model))
        run.update(model=self.model, seeds={"run": job.seed}, assurance=self.scorer.assurance)
        if variant.settings is None:
            checkpoint = Run.open(start_folder(self.out, job.seed)).checkpoint(variant.start)
        else:
            checkpoint = self._trained(variant, job.seed, run, stage)
        self._judge(variant, job.seed, run, stage, checkpoint)
        if variant.settings is not None and not self.keeps_checkpoints:
            rmtree(checkpoint, ignore_errors=True)

    def _trained(self, variant: Variant, seed: int, run: Run, stage: Stage) -> Path:
        """The checkpoint of a training. That of one that the guard gave up has the weights that it kept."""
        assert variant.settings is not None
        folder = training_folder(self.out, variant.name, seed)
        if run.finished(TRAINED):
            return Run.open(folder).checkpoint(variant.settings.algorithm)
        tasks, start = self.tasks(seed), Run.open(start_folder(self.out, seed))
        plan = TrainingPlan(
            settings=variant.settings,
            model=str(start.checkpoint(variant.start)),
            budget=self._budget(variant, seed),
            reward=variant.reward,
            seed=seed,
            stability=variant.stability,
            cascade=variant.cascade,
            probe_tasks=tasks.validation[: variant.probed],
        )
        learned = tasks.demonstrations if plan.algorithm == "sft" else self._trained_on(seed)
        with run.phase(TRAINED), stage(plan.algorithm) as report:
            try:
                train(
                    plan, learned, self.scorer, folder,
                    progress=lambda _what, done, total: report(done, total),
                )  # fmt: skip
            except UnstableTrainingError as error:  # a result, too: what is left of the policy is judged
                run.note(str(error))
        return Run.open(folder).checkpoint(plan.algorithm)

    def _budget(self, variant: Variant, seed: int) -> Budget:
        if not variant.as_long_as:
            return Budget(self.settings.grpo_steps)
        start = Run.open(start_folder(self.out, seed)).manifest.phases
        timed = Run.open(variant_folder(self.out, variant.as_long_as, seed)).manifest.phases
        before = sum(start[name].seconds for name in RL_PHASES)
        return Budget(seconds=before + (timed[TRAINED].seconds if TRAINED in timed else 0.0))

    def _judge(self, variant: Variant, seed: int, run: Run, stage: Stage, checkpoint: Path) -> None:
        held_out, temperature = self.tasks(seed).held_out, self.settings.temperature
        entrant = Entrant(
            name=variant.name,
            role="candidate",
            load=lambda _tasks: load_policy(str(checkpoint), scorer=self.scorer),
            label=f"{variant.label}, seed {seed}",
        )
        judge = Judge(scorer=self.scorer, reward=default, seed=seed, stage=stage)
        run.record_tasks(held_out)
        run.add_policy(variant.name, entrant.role, best_temperature=temperature, label=entrant.label)
        samplings = [Sampling(temperature, self.settings.held_out_samples)]
        with run.phase(JUDGED):
            out = run.evaluation(variant.name)
            record(entrant, lambda: entrant.load(held_out), held_out, samplings, judge, out, "judging")

    def _titled(self, name: str) -> Stage:
        return lambda title: self.stage(f"{name}: {title}")
