"""What `score` and `explain` share: patches from files, the task that they belong to, and scoring them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regrade.cli.console import asides, one_line, progress
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch, PatchError

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task, Tree
    from regrade.evaluators.attribution.results import Attribution
    from regrade.evaluators.scoring.probes import StaticProbe
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.rewards.algebra import Reward
    from regrade.rewards.breakdown import Breakdown
    from regrade.rewards.evidence import EvidenceSet, TestRun

ALREADY_THERE = (
    "these changes are in the repository already: stash them (git stash) and score what `git stash show -p` prints, or "
    "give a clean worktree with --repo"
)


@dataclass(frozen=True, kw_only=True)
class PatchResult:
    """What came of one patch file: a breakdown, or why it was refused."""

    source: str
    patch: Patch | None
    """None: it could not be read."""
    breakdown: Breakdown | None
    """None: it was refused."""
    refusal: str
    """Why it was refused: it can't be read, is no diff or does not apply. Empty for what was scored."""
    notes: tuple[str, ...]
    """What a reader of the score should know, about the repository and about the patch."""
    run: TestRun | None = None
    """What its tests said; None where it was refused, or the reward asked for none."""


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """What is asked of some patches: against which task, by which reward, and where they run."""

    repo: Path
    fail_to_pass: tuple[str, ...]
    tasks: Path | None
    task: str | None
    reward: str
    sandbox: str
    workers: int | None
    reachable: bool
    reward_model: Path | None = None
    time_limit: float = 600.0
    """Seconds for one run of a repository's tests as they are."""
    assured: str | None = None
    """The level that a verdict must have to be paid for (see `regrade.rewards.assured`)."""

    @property
    def is_task(self) -> bool:
        """Is it about a task that is stored somewhere, instead of a repository?"""
        return self.tasks is not None or self.task is not None


@dataclass(frozen=True)
class Sharing:
    """How a reward is shared out among hunks: see `regrade.evaluators.attribute`."""

    fine: bool
    budget: int
    seed: int


def score_files(sources: Sequence[str], request: ScoreRequest) -> list[PatchResult]:
    """Score each patch file (`-`: standard input), in order.

    One of several that can't be read, is no diff or does not apply is told of on stderr, and the others are scored.

    Raises:
        UserError: the task, the reward or the sandbox is not to be had, or the only patch is refused.
    """
    with scoring(sources, request) as (batch, task, reward, scorer), progress("scoring") as tell:
        jobs = [(task, patch) for patch in batch.patches.values()]
        found = scorer.gather(jobs, reward.needs, reachable=request.reachable, progress=tell)
        breakdowns = [reward.evaluate(evidence) for evidence in found]
    return batch.results(breakdowns, found)


def attribute_file(source: str, request: ScoreRequest, sharing: Sharing) -> tuple[PatchResult, Attribution]:
    """Score a patch file, and share its reward out among its hunks by scoring subsets of them.

    Raises:
        UserError: the patch is refused, or the task, the reward or the sandbox is not to be had.
    """
    from regrade.evaluators.attribution.hunk_attribution import attribute

    with scoring([source], request) as (batch, task, reward, scorer), progress("scoring parts of the patch") as tell:
        (patch,) = batch.patches.values()
        found = attribute(scorer, task, patch, reward, reachable=request.reachable, progress=tell, **asdict(sharing))
    (result,) = batch.results([found.whole.breakdown])
    return result, found


def attribute_attempt(text: str, digest: str, request: ScoreRequest, sharing: Sharing) -> Attribution:
    """Share the reward of a recorded attempt at a task out among its hunks.

    Args:
        text: of its patch.
        digest: of the task as it was then.

    Raises:
        UserError: the task is another one now, the patch does not apply, or something is not to be had.
    """
    from regrade.evaluators.attribution.hunk_attribution import attribute

    with scoring([], request) as (_, task, reward, scorer):
        if task.digest != digest:
            raise UserError(
                f"the task {task.id!r} has other files or tests now than when the attempt was recorded: name the file "
                "of tasks that it was made with by --tasks"
            )
        with progress("scoring parts of the patch") as tell:
            return attribute(
                scorer, task, Patch(text), reward, reachable=request.reachable, progress=tell, **asdict(sharing)
            )


@contextmanager
def scoring(sources: Sequence[str], request: ScoreRequest) -> Iterator[tuple[PatchFiles, Task, Reward, Scorer]]:
    """The patches that are good, the task and the reward asked for, and a scorer; what is printed goes to stderr.

    Raises:
        UserError: the task, the reward or the sandbox is not to be had, or the only patch is refused.
    """
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.rewards.assurance import assured
    from regrade.rewards.loading import load_reward

    batch = PatchFiles(sources)
    with asides():
        reward = load_reward(request.reward)
        if request.assured is not None:
            reward = reward.only_if(assured(request.assured)).named(reward.name)
        with Scorer(
            workers=request.workers, sandbox=request.sandbox, probes=model_probes(request.reward_model)
        ) as scorer:
            scorer.gather((), reward.needs)  # is there what gathers them? Before a suite runs for minutes
            base = find_base(request)
            batch.check(base, is_stored=request.is_task)
            task = base if request.is_task or not batch.patches else _measured(request, batch.tell)
            yield batch, task, reward, scorer
            if scorer.stats.damaged:
                batch.tell(f"damaged records of stored evidence, gathered again: {scorer.stats.damaged}")


class PatchFiles:
    """The patch files of one command: those that are good, why the others are refused, and what is noted on the way.

    The only file of a command is not put aside: why it is refused is raised.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        """
        Raises:
            UserError: the only patch is refused, or standard input is named twice.
        """
        if sources.count("-") > 1:
            raise UserError("standard input (-) is named twice, and can be read once: name it once")
        self._sources = sources
        self._read: dict[int, Patch] = {}
        self.patches: dict[int, Patch] = {}
        """Place among the files -> the patch, of those that are not refused."""
        self._refusals: dict[int, str] = {}
        self._notes: list[str] = []
        for place, source in enumerate(sources):
            with self._putting_aside(place):
                patch = self._read[place] = read_patch(source)
                check_diff(source, patch)
                self.patches[place] = patch
                if patch.is_empty:
                    _say("note", self._note_of(place))

    def check(self, task: Task, is_stored: bool) -> None:
        """Put aside what does not apply to a task, stored or of a repository. Raises UserError for the only patch."""
        for place, patch in list(self.patches.items()):
            with self._putting_aside(place):
                check_applies(self._sources[place], patch, task, is_stored)

    def tell(self, note: str) -> None:
        """Note something about the repository, and print it."""
        self._notes.append(one_line(note))
        _say("note", note)

    def results(self, breakdowns: Sequence[Breakdown], evidence: Sequence[EvidenceSet] = ()) -> list[PatchResult]:
        """What came of each file, in order; the breakdowns, and the evidence where it is at hand, are of `patches`."""
        from regrade.rewards.evidence import TestRun

        judged = dict(zip(self.patches, breakdowns, strict=True))
        runs = {place: found.records.get(TestRun) for place, found in zip(self.patches, evidence, strict=False)}
        return [self._result(place, judged.get(place), runs.get(place)) for place in range(len(self._sources))]

    def _result(self, place: int, breakdown: Breakdown | None, run: TestRun | None) -> PatchResult:
        notes = () if breakdown is None else (*self._notes, self._note_of(place))
        return PatchResult(
            source=self._sources[place],
            patch=self._read.get(place),
            breakdown=breakdown,
            refusal=self._refusals.get(place, ""),
            notes=tuple(note for note in notes if note),
            run=run,
        )

    def _note_of(self, place: int) -> str:
        """What is to be known of a patch alone; empty where there is nothing."""
        if not self._read[place].is_empty:
            return ""
        source = self._sources[place]
        name = "the patch on standard input" if source == "-" else one_line(source)
        return f"{name} is empty: what follows is the verdict on changing nothing"

    @contextmanager
    def _putting_aside(self, place: int) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            if len(self._sources) == 1:
                raise
            self._refusals[place] = one_line(error)
            self.patches.pop(place, None)
            _say("refused", error)


def _say(kind: str, text: object) -> None:
    print(f"{kind}: {one_line(text)}", file=sys.stderr)


def model_probes(folder: Path | None) -> Mapping[type, StaticProbe]:
    """What gathers the evidence of a trained reward model; nothing where none is named."""
    if folder is None:
        return {}
    try:
        from regrade.policy_training.reward_models.probe import RewardModelProbe
    except ImportError as error:
        raise UserError(
            f"a reward model needs {error.name}: install the extra `train` (pip install 'regrade[train]')"
        ) from error
    from regrade.rewards.evidence import Prediction

    return {Prediction: RewardModelProbe(folder)}


def read_patch(source: str) -> Patch:
    """The text of a file, whether or not it is a diff. Raises UserError."""
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise UserError(
            f"patch {source!r} cannot be read: {error.strerror}; give a file with a unified diff, or -"
        ) from error
    return Patch(data.decode("utf-8", "surrogateescape"))


def check_diff(source: str, patch: Patch) -> None:
    """Raises UserError where the patch is no unified diff."""
    try:
        _ = patch.files
    except PatchError as error:
        advice = "; `git diff > fix.diff` makes one" if patch.is_short else ""
        raise UserError(f"patch {source!r}: {error}{advice}") from error


def find_base(request: ScoreRequest) -> Task:
    """The task asked for by id, or a bare one of the repository's files, whose tests are not yet known.

    Raises:
        UserError: no such repository or task; or tests are named for a task, which has its own.
    """
    if not request.is_task:
        from regrade.datasets.tasks import Task, Tree

        repo = request.repo.resolve()
        if not repo.is_dir():
            raise UserError(
                f"the repository {str(request.repo)!r} is no folder: give the path of a repository with --repo"
            )
        return Task(
            id=str(repo), repository=str(repo), base=Tree(repo), instruction="", fail_to_pass=(), pass_to_pass=()
        )
    from regrade.cli.loading import load, load_one

    if request.fail_to_pass:
        raise UserError("--fail-to-pass is for a repository, and a task names its own tests: leave it out")
    source = "builtin" if request.tasks is None else str(request.tasks)
    if request.task is not None:
        return load_one(source, request.task)
    task, *others = load(source, None)
    if others:
        raise UserError(f"{source} holds {len(others) + 1} tasks, such as {task.id!r}: choose one with --task")
    return task


def _measured(request: ScoreRequest, tell: Callable[[str], None]) -> Task:
    """The task made of the repository by running its tests."""
    from regrade.evaluators.task_curation.local_repository import local_task

    with progress("running the repository's own tests") as advance:
        return local_task(
            request.repo,
            request.fail_to_pass,
            sandbox=request.sandbox,
            time_limit=request.time_limit,
            progress=advance,
            tell=tell,
        )


def check_applies(source: str, patch: Patch, task: Task, is_stored: bool) -> None:
    """A person's patch that does not apply is a mistake, not a low score. Raises UserError naming file and line."""
    from regrade.datasets.applying import DOES_NOT_APPLY
    from regrade.evaluators.execution.workspaces import prepare

    try:
        prepare(task, patch)
    except PatchError as error:
        why = str(error).removeprefix(DOES_NOT_APPLY)
        if _is_in_already(task.base, patch):
            why = "these changes are in the task's base already" if is_stored else ALREADY_THERE
        raise UserError(
            f"patch {source!r} does not apply to {task.repository}: {why}{_root_advice(task.base.root, patch)}"
        ) from error


def _is_in_already(base: Tree, patch: Patch) -> bool:
    """Do the files look as they do after the patch? So it is where somebody scores a diff of what they just edited."""
    import unidiff

    seen = False
    for file, hunks in zip(patch.files, unidiff.PatchSet(patch.text), strict=True):
        try:
            lines = base.read(file.path).split("\n")
        except OSError:
            lines = None
        if file.is_deleted != (lines is None):
            return False
        seen = seen or lines is None
        for hunk in hunks:
            after = [line.value.rstrip("\n") for line in hunk if line.is_added or line.is_context]
            start = hunk.target_start - 1
            if after and (lines or [])[start : start + len(after)] != after:
                return False
            seen = seen or bool(after)  # without a line around it, a removed line leaves nothing to be seen
    return seen


def _root_advice(folder: Path, patch: Patch) -> str:
    """What to do where the paths of a diff start at the root of a repository of which the folder is a part."""
    paths = [file.old_path for file in patch.files if file.old_path]
    root = next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)
    if root == folder or not paths or not all((root / path).is_file() for path in paths):
        return ""
    return f"; its paths start at {str(root)!r}: give that as --repo, or make the diff by `git diff --relative`"
