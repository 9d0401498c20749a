"""`regrade agent`: watch an agent work on a repository, with the verdict of the repository's own tests at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from regrade.cli import options
from regrade.cli.agent_display import MOST_TESTS, AgentVerdict, TrajectoryDisplay, show_verdict
from regrade.cli.console import one_line, print_json, progress, stderr, stdout, stdout_to_stderr
from regrade.cli.extras import training_libraries
from regrade.datasets.errors import UserError
from regrade.datasets.plurals import listed

if TYPE_CHECKING:
    from regrade.datasets.episodes import Episode, Step
    from regrade.datasets.patches import Patch
    from regrade.datasets.tasks import Task
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.policy_training.environments.agent_tools import EpisodeLimits, RunningEpisode
    from regrade.rewards.evidence import EvidenceSet

ActionFormat = Literal["chat", "compact"]
Message = dict[str, Any]
TRIES = 6
"""Requests for one answer of an endpoint, at most."""
BROKE = 1
"""Exit code if the agent's change breaks a test, stops the tests or tampers with them."""
STORING_PAUSE = 20
"""Between two times that the work so far is stored, at least this times as long as one takes."""
ENDPOINT = "endpoint:"
Instruction = Annotated[str, typer.Argument(metavar="INSTRUCTION", help="What to do, in words; - for standard input.")]
ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        help="With --endpoint: the name of a model there. Otherwise a local one: the folder of a checkpoint, a "
        "model on the Hugging Face hub, or smollm2-135m.",
    ),
]
AgentRepo = Annotated[Path, typer.Option(help="Folder of the repository. The agent works on a copy.")]
FormatName = Annotated[
    ActionFormat,
    typer.Option(
        help="How the model acts. chat: by tool calls. compact: by one-line actions, for a local checkpoint that "
        "was trained on them."
    ),
]
Temperature = Annotated[float, typer.Option(min=0.0, max=100.0, help="Sampling temperature.")]
SamplingSeed = Annotated[int, typer.Option(min=0, max=options.LARGEST_SEED, help="Seed of sampling.")]
MostTurns = Annotated[int, typer.Option(min=1, max=options.MOST, help="Maximum number of actions.")]
MostTestRuns = Annotated[int, typer.Option(min=0, max=options.MOST, help="Maximum number of test runs.")]
MostTokens = Annotated[int | None, typer.Option(min=1, help="Maximum number of generated tokens. Default: no limit.")]
MostSeconds = Annotated[float, typer.Option(min=1, max=options.LONGEST, help="Maximum wall time, in seconds.")]
AgentFolder = Annotated[
    Path | None,
    typer.Option(
        file_okay=False,
        callback=options.creatable,
        help="Folder for the patch, the trajectory and the chat. Default: a new one in the cache.",
    ),
]
Apply = Annotated[
    bool,
    typer.Option(
        "--apply",
        help="Apply the change to the repository, if it breaks no test; without its changes of tests and of their "
        "configuration, which the verdict leaves out.",
    ),
]


def agent(
    instruction: Instruction,
    model: ModelName,
    repo: AgentRepo = Path(),
    endpoint: options.EndpointURL = "",
    key_env: options.KeyVariable = None,
    answer_limit: options.AnswerLimit = 300.0,
    format: FormatName = "chat",
    temperature: Temperature = 0.0,
    seed: SamplingSeed = 0,
    turns: MostTurns = 30,
    test_runs: MostTestRuns = 10,
    tokens: MostTokens = None,
    seconds: MostSeconds = 1800.0,
    fail_to_pass: options.FailToPass = None,
    tests: options.TestPaths = None,
    deselect: options.Deselect = None,
    python_path: options.PythonPath = None,
    sandbox: options.SandboxName = "auto",
    workers: options.Workers = None,
    time_limit: options.TimeLimit = None,
    test_timeout: options.TestTimeout = None,
    out: AgentFolder = None,
    apply: Apply = False,
    json: options.JsonObject = False,
) -> None:
    """Let an agent work on a repository, and see what it does.

    The agent reads, searches and edits a copy in memory, and runs the repository's tests in a sandbox; it has no shell.
    Prints each step, and at the end the change and the verdict of the whole test suite. The repository itself changes
    only with --apply, by what the verdict judged: changes of tests and of their configuration are left out.

    Exits with 1 if the change breaks a test that passed before, stops the tests, or tampers with them.
    """
    from regrade.policy_training.environments.agent_tools import EpisodeLimits

    limits = EpisodeLimits(turns=turns, test_runs=test_runs, tokens=tokens, seconds=seconds)
    text = _instruction(instruction)
    display = TrajectoryDisplay(stderr() if json else stdout())
    driver = _driver(model, endpoint, key_env, answer_limit, format, temperature, seed)
    with stdout_to_stderr() if json else nullcontext(), driver as run:
        from regrade.evaluators.scoring.scorer import Scorer
        from regrade.evaluators.task_curation.local_repository import local_task

        with progress("running the unchanged tests") as report:
            task = local_task(
                repo, tuple(fail_to_pass or ()), sandbox=sandbox, time_limit=time_limit, test_limit=test_timeout,
                tests=tuple(tests or ()), deselect=tuple(deselect or ()), python_path=tuple(python_path or ()),
                progress=report, tell=_note,
            )  # fmt: skip
        task = replace(task, instruction=text)
        _ = task.digest  # the files as they are now, for --apply
        folder = out or _new_folder(task)
        with Scorer(sandbox=sandbox, workers=workers) as scorer:
            display.begin(task, model, endpoint)
            work = Work(task, scorer, limits, display, folder)
            with _kept(work):
                episode = _run(work, run)
                display.end(episode)
                evidence = _verdict(task, episode.patch, scorer)
    _conclude(work, episode, evidence, apply=apply, json=json)


@dataclass
class Work:
    """One episode while it runs."""

    task: Task
    scorer: Scorer
    limits: EpisodeLimits
    display: TrajectoryDisplay
    folder: Path
    session: RunningEpisode | None = None
    """None: it has not begun."""
    chat: list[Message] = field(default_factory=list)
    is_stored: bool = False
    _is_warned: bool = False
    _next: float = 0.0
    """When the next step is stored, at the earliest."""

    def step(self, step: Step) -> None:
        """Show a step, and store all so far: a killed command has lost at most a small share of its time."""
        self.display.step(step)
        if time.monotonic() >= self._next:
            began = time.monotonic()
            self.try_to_store()
            self._next = time.monotonic() + STORING_PAUSE * (time.monotonic() - began)

    def try_to_store(self) -> None:
        """Store the episode so far; a full disk stops no agent, since there may be room when it ends."""
        try:
            self.store()
        except OSError as error:
            if not self._is_warned:
                why = error.strerror
                _note(f"the work so far cannot be stored in {self.folder} ({why}); it is tried again: free space")
            self._is_warned = True

    def store(self) -> None:
        """Raises OSError."""
        if self.session is not None:
            _store(self.folder, self.session.episode(), self.chat)
            self.is_stored = True


EpisodeDriver = Callable[[Work], None]
"""Runs an episode, and keeps it in the work."""


def _instruction(text: str) -> str:
    if text == "-":
        text = typer.get_text_stream("stdin").read()
    if not text.strip():
        raise UserError("the instruction is empty: say what the agent should do")
    return text


@contextmanager
def _driver(
    model: str, url: str, key: str | None, seconds: float, action_format: ActionFormat, temperature: float, seed: int
) -> Iterator[EpisodeDriver]:
    """The model, loaded or connected."""
    name = model.removeprefix(ENDPOINT)
    if url and action_format == "compact":
        raise UserError("--format compact is for a local model: leave out --endpoint")
    if not url and model.startswith(ENDPOINT):
        raise UserError(f"{model!r} is behind an endpoint: give its base URL with --endpoint URL")
    if url:
        from regrade.policy_training.environments.chat_models import endpoint_chat
        from regrade.policy_training.policies.endpoint_requests import Endpoint

        server = Endpoint(base_url=url, model=name, key_variable=key, seconds=seconds, tries=TRIES, at_a_time=1)
        with endpoint_chat(server, temperature=temperature, seed=seed) as complete:
            yield _chat(complete)
        return
    with training_libraries("a local model"):
        from regrade.policy_training.policies.models import load_model

        language_model = load_model(name)
        if action_format == "chat":
            from regrade.policy_training.environments.chat_models import LocalChat

            yield _chat(LocalChat(language_model, temperature, seed=seed))
            return
        from regrade.policy_training.environments.agent_policy import AgentFormat
        from regrade.policy_training.environments.compact_loop import run_watched, watched_dialogue

        if AgentFormat.of_checkpoint(Path(name)).limits.turns == 1:
            _note(f"{name} was not trained as an agent of several turns: it may write no action that can be read")

    def run(work: Work) -> None:
        def watch(step: Step) -> None:
            assert dialogue.episode is not None
            work.session = dialogue.episode.environment.session
            work.step(step)

        dialogue = watched_dialogue(language_model, work.task, work.scorer, work.limits, watch, temperature)
        run_watched(dialogue, seed)

    yield run


def _chat(complete: Callable[[Sequence[Message], list[dict[str, Any]]], Any]) -> EpisodeDriver:
    """The loop of a chat model that shows what the model says and how long it takes."""

    def run(work: Work) -> None:
        from regrade.policy_training.environments.agent_tools import RepositoryEnvironment
        from regrade.policy_training.environments.chat_loop import run_chat_episode

        environment = RepositoryEnvironment({work.task.id: work.task}, work.scorer, work.limits)

        def asked(messages: Sequence[Message], tools: list[dict[str, Any]]) -> Any:
            work.session, work.chat = environment.session, list(messages)
            began = time.monotonic()
            with work.display.waiting():
                answer = complete(messages, tools)
            work.display.answer(answer.message, answer.tokens, time.monotonic() - began)
            return answer

        _, work.chat = run_chat_episode(environment, work.task.id, asked, work.step)

    return run


def _run(work: Work, run: EpisodeDriver) -> Episode:
    """The episode. It is stored however it ends, also if the model's server dies or the user stops it."""
    from regrade.policy_training.policies.endpoint_requests import LostAttemptError

    try:
        run(work)
    except LostAttemptError as error:
        advice = "start the server, or give its base URL with --endpoint (it often ends in /v1)"
        raise UserError(f"the endpoint gave no answer: {one_line(error)}; {advice}") from error
    finally:
        work.try_to_store()
    assert work.session is not None
    return work.session.episode()


def _conclude(work: Work, episode: Episode, evidence: EvidenceSet | None, *, apply: bool, json: bool) -> None:
    """Print the verdict, apply the change if it is wanted and harmless, and exit as the command says."""
    console, folder, root = stderr() if json else stdout(), work.folder, work.task.base.root
    result = show_verdict(console, work.task, episode, evidence)
    applied = _apply(work.task, episode.patch, result, folder) if apply else []
    try:
        work.store()
        console.print(f"patch, trajectory and chat: {folder}", markup=False, soft_wrap=True)
    except OSError:
        if not json:
            print(episode.patch.text, end="")
        raise
    finally:
        if applied:
            console.print(f"applied to {root}: {listed(applied, MOST_TESTS)}", markup=False, soft_wrap=True)
        if json:
            print_json({**result.to_json(), "folder": str(folder), "applied": bool(applied)})
    if result.cause:
        raise UserError(
            f"the change could not be judged, for a reason outside of it: {result.cause}; it is in {folder}"
        )
    if result.run is not None and not result.is_harmless:
        raise typer.Exit(BROKE)


@contextmanager
def _kept(work: Work) -> Iterator[None]:
    """Says where the work so far is if something stops it."""
    try:
        yield
    except BaseException:
        if work.is_stored and work.session is not None and work.session.steps:
            _note(f"what the agent did so far is in {work.folder}")
        raise


def _store(folder: Path, episode: Episode, chat: Sequence[Message]) -> None:
    from json import dumps

    from regrade.datasets.episode_json import StoredEpisode
    from regrade.evaluators.storage.journal import write_atomically

    def lines(value: object) -> str:
        return dumps(value, indent=1).encode("utf-8", "replace").decode() + "\n"

    write_atomically(folder / "change.diff", episode.patch.text)
    write_atomically(folder / "trajectory.json", lines(StoredEpisode.of(episode).to_json()))
    if chat:
        write_atomically(folder / "chat.json", lines(chat))


def _new_folder(task: Task) -> Path:
    """A folder that no other command uses."""
    from regrade.datasets.caches import default_cache

    moment = time.strftime("%Y%m%d-%H%M%S")
    return default_cache() / "agents" / f"{task.base.root.name}-{moment}-{os.getpid()}"


def _verdict(task: Task, patch: Patch, scorer: Scorer) -> EvidenceSet | None:
    """The evidence on the change; None without one."""
    from regrade.evaluators.execution.untestable import as_failure
    from regrade.rewards.evidence import Integrity, TestRun

    if patch.is_empty:
        return None
    with progress("running all tests on the change") as report:
        (evidence,) = scorer.gather([(task, patch)], {TestRun, Integrity}, progress=report)
    return as_failure(task, evidence)


def _apply(task: Task, patch: Patch, result: AgentVerdict, folder: Path) -> list[str]:
    """Write the changed files that the verdict judged into the repository; returns their paths.

    Raises:
        UserError: a file was changed meanwhile.
    """
    from regrade.datasets.applying import changed_files

    diff = folder / "change.diff"
    if patch.is_empty:
        return []
    if not result.is_harmless:
        why = "breaks tests" if result.broken else f"has the verdict `{result.verdict}`"
        _note(f"not applied, as it {why}: `git apply {diff}` applies it anyway")
        return []
    files = changed_files(task.base, patch)
    judged = {path: text for path, text in files.items() if path not in result.not_judged}
    if len(judged) < len(files):
        _note(
            f"not applied, as the verdict does not judge it: {listed(result.not_judged, MOST_TESTS)}; it is in {diff}"
        )
    write_changes(task, judged, diff)
    return sorted(judged)


def write_changes(task: Task, files: Mapping[str, str | None], diff: Path) -> None:
    """Write files into the repository, and delete those without a text; all or none.

    Raises:
        UserError: one of them, or a folder above it, is not what it was when the agent began.
    """
    from hashlib import sha256

    root = task.base.root
    for path in files:
        target = root / path
        known = task.base.known.get(path)
        is_same = (
            not target.exists() and not target.is_symlink()
            if known is None
            else target.is_file()
            and not target.is_symlink()
            and known.endswith(sha256(target.read_bytes()).hexdigest())
        )
        if not (is_same and target.resolve().is_relative_to(root)):
            raise UserError(
                f"{target} has changed since the agent began, so nothing was applied: apply its change yourself with "
                f"`git apply {diff}`"
            )
    for path, text in files.items():
        target = root / path
        if text is None:
            target.unlink()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode("utf-8", "surrogateescape"))


def _note(text: str) -> None:
    stderr().print(f"note: {one_line(text)}", markup=False, soft_wrap=True)
