"""Scoring of patch files for `score` and `explain`: read the patches, make the task, score."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrade.cli.console import one_line, progress, stdout_to_stderr
from regrade.cli.extras import training_libraries
from regrade.datasets.errors import UserError
from regrade.datasets.input_files import LONGEST_PATCH, read_patch_file
from regrade.datasets.patch_forms import named_files
from regrade.datasets.patches import Patch, PatchError

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task, Tree
    from regrade.evaluators.attribution.results import Attribution
    from regrade.evaluators.scoring.probes import StaticProbe
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.rewards.algebra import Reward
    from regrade.rewards.breakdown import Breakdown
    from regrade.rewards.evidence import EvidenceSet, Integrity, TestRun, Verification
ALREADY_APPLIED = (
    "the repository already contains these changes: stash them (git stash) and score the output of `git stash show "
    "-p`, or give a clean worktree with --repo"
)


@dataclass(frozen=True, kw_only=True)
class PatchResult:
    """The result of one patch file: a breakdown, or the reason of its refusal."""

    source: str
    patch: Patch | None
    """None: the file could not be read."""
    breakdown: Breakdown | None
    """None: the patch was refused."""
    refusal: str
    """The reason: the file cannot be read, is not a diff or does not apply. Empty if the patch was scored."""
    notes: tuple[str, ...]
    """Context for a reader of the score, about the repository and about the patch."""
    run: TestRun | None = None
    """The outcomes of its tests; None if it was refused, or if the reward needs no tests."""
    integrity: Integrity | None = None
    """What the patch tampers with, and the edits that the run ignores; None as above."""
    verification: Verification | None = None
    """What supports its verdict; None as above, or if none is required."""


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """How to score patches: the task, the reward and the sandbox."""

    repo: Path
    fail_to_pass: tuple[str, ...]
    tasks: Path | None
    task: str | None
    reward: str
    sandbox: str
    workers: int | None
    reachable: bool
    reward_model: Path | None = None
    tests: tuple[str, ...] = ()
    deselect: tuple[str, ...] = ()
    python_path: tuple[str, ...] = ()
    time_limit: float | None = None
    """For one run of the repository's unchanged tests, in seconds; None: the repository's own, or 600."""
    test_timeout: float | None = None
    """For each test, in seconds; None: the repository's own, or see `Limits.test_seconds`."""
    fresh: bool = False
    """Ignore stored results."""
    assured: str | None = None
    """The lowest assurance level that is rewarded; None: see `regrade.rewards.assurance.at_level`."""

    @property
    def is_task(self) -> bool:
        """Is the task stored in a file, instead of made from a repository?"""
        return self.tasks is not None or self.task is not None


@dataclass(frozen=True)
class AttributionOptions:
    """How to attribute a reward to hunks (see `regrade.evaluators.attribute`)."""

    fine: bool
    budget: int
    seed: int


def score_files(sources: Sequence[str], request: ScoreRequest) -> list[PatchResult]:
    """Score each patch file (`-`: standard input), in order.

    One of several that cannot be read, is not a diff or does not apply is reported on stderr; the others are scored.

    Raises:
        UserError: the task, the reward or the sandbox is not available, or the only patch is refused.
    """
    from regrade.rewards.errors import errors_of_attempt

    with scoring(sources, request) as (batch, task, reward, scorer), progress("scoring") as report:
        jobs = [(task, patch) for patch in batch.patches.values()]
        evidence = scorer.gather(jobs, reward.needs, reachable=request.reachable, progress=report)
        breakdowns = []
        for source, found in zip(batch.patches, evidence, strict=True):
            with errors_of_attempt(str(source)):
                breakdowns.append(reward.evaluate(found))
    return batch.results(breakdowns, evidence)


def attribute_file(source: str, request: ScoreRequest, options: AttributionOptions) -> tuple[PatchResult, Attribution]:
    """Score a patch file, and attribute its reward to its hunks by scoring subsets of them.

    Raises:
        UserError: the patch is refused, or the task, the reward or the sandbox is not available.
    """
    from regrade.evaluators.attribution.hunk_attribution import attribute

    with (
        scoring([source], _unverified(request)) as (batch, task, reward, scorer),
        progress("scoring parts of the patch") as report,
    ):
        (patch,) = batch.patches.values()
        attribution = attribute(
            scorer, task, patch, reward, reachable=request.reachable, progress=report, **asdict(options)
        )
    (result,) = batch.results([attribution.whole.breakdown])
    return result, _with_options(attribution)


def attribute_attempt(text: str, digest: str, request: ScoreRequest, options: AttributionOptions) -> Attribution:
    """Attribute the reward of a recorded attempt at a task to the hunks of its patch.

    Args:
        text: of the patch.
        digest: of the task when the attempt was recorded.

    Raises:
        UserError: the task has changed, the patch does not apply, or the reward or the sandbox is not available.
    """
    from regrade.evaluators.attribution.hunk_attribution import attribute

    with scoring([], _unverified(request)) as (_, task, reward, scorer):
        if task.digest != digest:
            raise UserError(
                f"the task {task.id!r} has other files or tests than when the attempt was recorded: give the original "
                "task file with --tasks"
            )
        with progress("scoring parts of the patch") as report:
            attribution = attribute(
                scorer, task, Patch(text), reward, reachable=request.reachable, progress=report, **asdict(options)
            )
    return _with_options(attribution)


def _unverified(request: ScoreRequest) -> ScoreRequest:
    """The request without the default verification, which would run for each subset of the hunks."""
    return replace(request, assured=request.assured or "in-process")


def _with_options(attribution: Attribution) -> Attribution:
    return replace(attribution, notes=tuple(map(one_line, attribution.notes)))


@contextmanager
def scoring(sources: Sequence[str], request: ScoreRequest) -> Iterator[tuple[PatchFiles, Task, Reward, Scorer]]:
    """The valid patches, the task, the reward and a scorer; until the end, stdout is redirected to stderr.

    Raises:
        UserError: the task, the reward or the sandbox is not available, or the only patch is refused.
    """
    from regrade.evaluators.execution.environments import interpreter_of, look_ahead, shared_lookups

    batch = PatchFiles(sources)
    with stdout_to_stderr(), shared_lookups():
        if not request.is_task:
            look_ahead(interpreter_of(request.repo.resolve()))
        from regrade.evaluators.scoring.scorer import Scorer
        from regrade.rewards.assurance import at_level
        from regrade.rewards.loading import load_reward

        reward = load_reward(request.reward)
        reward = at_level(reward, request.assured, whole_suite=not request.reachable).named(reward.name)
        with Scorer(
            workers=request.workers,
            sandbox=request.sandbox,
            probes=model_probes(request.reward_model),
            fresh=request.fresh,
        ) as scorer:
            scorer.gather((), reward.needs)  # fails if a probe is missing, before a suite runs for minutes
            base = find_base(request)
            batch.check(base, is_stored=request.is_task)
            task = _with_tests(base, request, batch)
            yield batch, task, reward, scorer
            if scorer.stats.damaged:
                batch.note(f"damaged records of stored evidence, gathered again: {scorer.stats.damaged}")


class PatchFiles:
    """The patch files of one command: valid patches, reasons of refusals, and notes.

    If there is only one file, its refusal is raised as an error.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        """
        Raises:
            UserError: the only patch is refused, or standard input is named twice.
        """
        if sources.count("-") > 1:
            raise UserError("standard input (-) can be read only once: give - once")
        self._sources = sources
        self._read: dict[int, Patch] = {}
        self.patches: dict[int, Patch] = {}
        """Index of the file -> patch, for all patches that are not refused."""
        self._refusals: dict[int, str] = {}
        self._notes: list[str] = []
        self._notes_of: dict[int, list[str]] = {}
        for index, source in enumerate(sources):
            with self._refusing(index):
                patch = self._read[index] = read_patch(source)
                check_diff(source, patch)
                self.patches[index] = patch

    def check(self, task: Task, is_stored: bool) -> None:
        """Refuse the patches that do not apply to the task. Raises UserError for the only patch."""
        for index, patch in list(self.patches.items()):
            with self._refusing(index):
                check_applies(self._sources[index], patch, task, is_stored)
                self._notes_of[index] = list(self._notes_on(task.base, index))
                for note in self._notes_of[index]:
                    _print_line("note", note)

    def note(self, text: str) -> None:
        """Store a note about the repository, and print it."""
        self._notes.append(one_line(text))
        _print_line("note", text)

    def results(self, breakdowns: Sequence[Breakdown], evidence: Sequence[EvidenceSet] = ()) -> list[PatchResult]:
        """The result of each file, in order; breakdowns, and evidence if available, are in the order of `patches`."""
        breakdown_of = dict(zip(self.patches, breakdowns, strict=True))
        records = {index: evidence_set.records for index, evidence_set in zip(self.patches, evidence, strict=False)}
        return [
            self._result(index, breakdown_of.get(index), records.get(index, {})) for index in range(len(self._sources))
        ]

    def _result(self, index: int, breakdown: Breakdown | None, records: Mapping[type, Any]) -> PatchResult:
        from regrade.rewards.evidence import DefaultVerification, Integrity, TestRun, Verification

        notes = () if breakdown is None else (*self._notes, *self._notes_of.get(index, ()))
        return PatchResult(
            source=self._sources[index],
            patch=self._read.get(index),
            breakdown=breakdown,
            refusal=self._refusals.get(index, ""),
            notes=tuple(notes),
            run=records.get(TestRun),
            integrity=records.get(Integrity),
            verification=records.get(Verification, records.get(DefaultVerification)),
        )

    def _notes_on(self, base: Tree, index: int) -> Iterator[str]:
        """The notes about a single patch: its repairs, and whether it is empty."""
        from regrade.datasets.applying import notes_on

        patch, source = self._read[index], self._sources[index]
        name = "the patch on standard input" if source == "-" else one_line(source)
        yield from (f"{name}: {one_line(note)}" for note in notes_on(base, patch))
        if patch.is_empty:
            yield f"{name} is empty: its verdict is that of no change"

    @contextmanager
    def _refusing(self, index: int) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            if len(self._sources) == 1:
                raise
            self._refusals[index] = one_line(error)
            self.patches.pop(index, None)
            _print_line("refused", error)


def _print_line(kind: str, text: object) -> None:
    print(f"{kind}: {one_line(text)}", file=sys.stderr)


def model_probes(folder: Path | None) -> Mapping[type, StaticProbe]:
    """The probe for the evidence of a trained reward model; empty without a model."""
    if folder is None:
        return {}
    if not (folder / "config.json").is_file():  # the libraries of training take seconds to import
        raise UserError(f"{folder} holds no reward model: give a folder that `regrade train reward-model` wrote")
    with training_libraries("a reward model"):
        from regrade.policy_training.reward_models.probe import RewardModelProbe
    from regrade.rewards.evidence import Prediction

    return {Prediction: RewardModelProbe(folder)}


def read_patch(source: str) -> Patch:
    """The text of a file, which may be no diff. Raises UserError if it cannot be read."""
    try:
        data = sys.stdin.buffer.read(LONGEST_PATCH) if source == "-" else read_patch_file(Path(source))
    except OSError as error:
        raise UserError(
            f"patch {source!r} cannot be read: {error.strerror}; give a file with a unified diff, or -"
        ) from error
    return Patch(data.decode("utf-8", "surrogateescape"))


def check_diff(source: str, patch: Patch) -> None:
    """Raises UserError if the patch is not a unified diff. Whether a malformed one applies, `git apply` decides."""
    error = _malformed(source, patch)
    if error is not None and not (patch.is_short and named_files(patch.text)):
        raise error


def _malformed(source: str, patch: Patch) -> UserError | None:
    """Why a patch is not a unified diff; None if it is one."""
    try:
        _ = patch.files
    except PatchError as error:
        advice = "; `git diff > fix.diff` writes one" if patch.is_short else ""
        return UserError(f"patch {source!r}: {error}{advice}")
    return None


def find_base(request: ScoreRequest) -> Task:
    """The stored task, or a preliminary task of the repository's files, without tests.

    Raises:
        UserError: there is no such repository or task, or --fail-to-pass is given for a stored task.
    """
    if not request.is_task:
        from regrade.datasets.tasks import Task, Tree

        repo = request.repo.resolve()
        if not repo.is_dir():
            raise UserError(
                f"the repository {str(request.repo)!r} is not a folder: give the path of a repository with --repo"
            )
        return Task(
            id=str(repo), repository=str(repo), base=Tree(repo), instruction="", fail_to_pass=(), pass_to_pass=()
        )
    from regrade.cli.loading import load, load_one

    if request.fail_to_pass:
        raise UserError("--fail-to-pass applies to a repository; a task names its own tests: leave it out")
    if request.tests or request.deselect or request.python_path:
        raise UserError("--tests, --deselect and --python-path apply to a repository: leave them out for a task")
    source = "builtin" if request.tasks is None else str(request.tasks)
    if request.task is not None:
        return load_one(source, request.task)
    task, *others = load(source, None)
    if others:
        raise UserError(f"{source} contains {len(others) + 1} tasks, for example {task.id!r}: choose one with --task")
    return task


def _with_tests(base: Task, request: ScoreRequest, batch: PatchFiles) -> Task:
    """The task with its tests: measured, if its file names none to guard or it is made from a repository."""
    if request.is_task:
        from regrade.cli.loading import measured

        return measured([base], request.sandbox, batch.note)[0]
    return _task_of_repository(request, batch.note) if batch.patches else base


def _task_of_repository(request: ScoreRequest, note: Callable[[str], None]) -> Task:
    """The task of the repository, from a run of its tests."""
    from regrade.evaluators.task_curation.local_repository import local_task

    with progress("running the unchanged tests") as report:
        return local_task(
            request.repo,
            request.fail_to_pass,
            sandbox=request.sandbox,
            time_limit=request.time_limit,
            test_limit=request.test_timeout,
            tests=request.tests,
            deselect=request.deselect,
            python_path=request.python_path,
            progress=report,
            tell=note,
        )


def check_applies(source: str, patch: Patch, task: Task, is_stored: bool) -> None:
    """Raises UserError with file and line for a patch that does not apply: a user error, not a low score."""
    from regrade.datasets.applying import DOES_NOT_APPLY
    from regrade.evaluators.execution.workspaces import prepare

    try:
        prepare(task, patch)
    except PatchError as error:
        malformed = _malformed(source, patch)
        if malformed is not None:
            raise malformed from error
        why = str(error).removeprefix(DOES_NOT_APPLY)
        if "corrupt" not in why and _is_applied(task.base, patch):
            why = "the base of the task already contains these changes" if is_stored else ALREADY_APPLIED
        raise UserError(
            f"patch {source!r} does not apply to {task.repository}: {why}{_root_advice(task.base.root, patch)}"
        ) from error


def _is_applied(base: Tree, patch: Patch) -> bool:
    """Do the files already have the patched content? This is the case for a diff of edits in the working tree."""
    has_trace = False
    for file, entry in zip(patch.files, patch.plain.entries, strict=True):
        try:
            lines = base.read(file.path).split("\n")
        except OSError:
            lines = None
        if file.is_deleted != (lines is None):
            return False
        has_trace = has_trace or lines is None
        for hunk in entry.hunks:
            after = [line[1:] for line in hunk.lines if line[0] in "+ "]
            start = hunk.new_start - 1
            if after and (lines or [])[start : start + len(after)] != after:
                return False
            has_trace = has_trace or bool(after)  # a removed line without context leaves no trace
    return has_trace


def _root_advice(folder: Path, patch: Patch) -> str:
    """Advice for a diff whose paths start at the root of a repository that contains the folder."""
    paths = [file.old_path for file in patch.files if file.old_path]
    root = next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)
    if root == folder or not paths or not all((root / path).is_file() for path in paths):
        return ""
    return f"; its paths start at {str(root)!r}: give that as --repo, or make the diff with `git diff --relative`"
