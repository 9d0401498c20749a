"""A run: a folder with a manifest (what was done, with what, how long it took) and everything that was measured.

    RUN/manifest.json                   versions, seeds, configuration, policies, phases: see `Manifest`
    RUN/tasks.jsonl                     the held-out tasks in words, for the report: see `Run.record_tasks`
    RUN/evaluations/POLICY.jsonl        rows of a policy on the held-out tasks, all temperatures
    RUN/evaluations-validation/...      the same on the validation tasks, which chose the temperatures
    RUN/training/PHASE.jsonl            one line a step, any numeric keys (loss, reward, entropy, kl, ...)
    RUN/checkpoints/NAME/               weights and optimizer states
    RUN/hunks.jsonl                     what hunks are worth: see `regrade.reports.attribution_store`
    RUN/summary.json, RUN/report.html   written by `regrade.reports`

Every file is appended line by line or replaced at once, so a run killed at any moment can be opened and gone on with.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import converted
from regrade.datasets.json_text import is_text
from regrade.datasets.tasks import Task
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.json_numbers import finite_values

PolicyRole = Literal["baseline", "control", "candidate", "checkpoint", "upper bound", "scripted"]
"""What a policy is in the comparison: what the candidate must beat, what rules out an easier explanation (more time),
what is judged, a state of it along its training, what saw more than it was allowed to, and what follows a fixed rule
(changes nothing; the reference)."""

DECISIVE: Mapping[str, int] = {"regrade": 3, "python": 2, "pytest": 1}
"""What decides what a test's outcome means -> how many parts of its version have to agree."""

ADVICE = "restore it or start the run in a new folder"
"""What to do about a manifest that cannot be read."""

HEARTBEAT_SECONDS = 5.0
"""How much of a phase's wall time a `kill -9` may cost."""

RECORDED_PACKAGES = ("regrade", "numpy", "pandas", "pytest", "scipy", "statsmodels", "torch", "transformers", "trl")

LONGEST_NAME = 150
"""Bytes of a file's name, less its ending."""

STEP_SECONDS = {
    "execution": "execution_seconds",
    "generation": "generation_seconds",
    "training": "training_seconds",
}
"""Part of a training step -> the key of the training log that holds its seconds."""


@dataclass(frozen=True, kw_only=True)
class PolicyEntry:
    """What the report needs to know of one policy; its rows lie in `evaluations/`."""

    role: PolicyRole
    best_temperature: Annotated[float, msgspec.Meta(ge=0, le=1e300)] = 0.0
    """Chosen on validation tasks, never on the held-out ones; 0 is greedy."""
    label: str = ""
    """The name that people read; empty: the policy's own name."""
    chosen: bool = False
    """Was the temperature chosen on validation tasks? Else it is the only one, or the lowest one tried."""
    series: str = ""
    """For a checkpoint: the training that it belongs to."""
    step: int | None = None
    """For a checkpoint: after how many steps of it."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """What it was made of (a model's name, an endpoint, a command), as plain JSON, without any key."""


@dataclass(frozen=True)
class Phase:
    """Wall time of one phase of a run, over all the attempts that it took."""

    seconds: float = 0.0
    done: bool = False


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is needed to repeat a run and to read its results."""

    name: str = ""
    started: str = ""
    """UTC, ISO 8601."""
    model: str = ""
    sandbox: str = ""
    assurance: str = ""
    seeds: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    """Python, the platform and each package that could change a result."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Name of an input (a set of tasks, a model's weights) -> its digest."""
    policies: Mapping[str, PolicyEntry] = field(default_factory=dict)
    phases: Mapping[str, Phase] = field(default_factory=dict)
    """In the order in which they began."""
    share_of_step: Mapping[str, float] = field(default_factory=dict)
    """execution, generation, training -> share of the wall time of reinforcement learning's steps; adds up to 1."""
    notes: tuple[str, ...] = ()
    """What a reader of the report must know: a time-out that cut a phase short, an odd setting."""

    def to_json(self) -> dict[str, Any]:
        """`phases` is written as name -> seconds, `phases_done` lists those that ended."""
        values = asdict(self)
        values["phases"] = {name: round(phase.seconds, 3) for name, phase in self.phases.items()}
        values["phases_done"] = [name for name, phase in self.phases.items() if phase.done]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str = "manifest") -> Manifest:
        """Raises UserError naming `source` and the entry that is wrong."""
        plain = {**values, "policies": {}} if isinstance(values.get("policies", {}), dict) else values
        converted(plain, _Written, f"{source}: damaged", ADVICE)
        known = {key: values[key] for key in cls.__dataclass_fields__ if key in values}
        done = set(values.get("phases_done", ()))
        known["policies"] = {name: _policy(name, entry, source) for name, entry in values.get("policies", {}).items()}
        seconds = values.get("phases", {})
        known["phases"] = {name: Phase(float(spent), name in done) for name, spent in seconds.items()}
        known["notes"] = tuple(values.get("notes", ()))
        return cls(**known)


class Run:
    """A run's folder. Making one creates the folder and its manifest, or opens those that are there.

    The manifest is read anew for each access and replaced at once by each change, so several `Run`s of one folder in
    one process agree. Two processes should not change one run at a time: see `writing`.
    """

    def __init__(self, folder: Path) -> None:
        """Raises UserError if the folder can't be made."""
        self.folder = folder
        self._lock = threading.RLock()  # the heartbeat of a phase writes beside the program
        if not self.manifest_path.exists():
            started = datetime.now(UTC).isoformat(timespec="seconds")
            try:
                self._write(Manifest(name=folder.name, started=started, versions=installed_versions()))
            except OSError as error:
                why = error.strerror or error
                raise UserError(f"the run's folder {str(folder)!r} can't be written: {why}") from error

    @classmethod
    def open(cls, folder: Path) -> Run:
        """A run that must exist already. Raises UserError if it doesn't."""
        if not (folder / "manifest.json").exists():
            advice = "give a folder that `regrade demo` or `regrade evaluate` wrote"
            raise UserError(f"{folder} is no run: it has no manifest.json; {advice}")
        return cls(folder)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes from adding to the run meanwhile: each would miss what the other writes.

        Raises:
            UserError: another process does so. (One that was killed does not.)
        """
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise UserError(
                        f"another process is writing into {self.folder}: wait for it, or give another folder"
                    ) from error
            yield
        finally:
            os.close(descriptor)

    @property
    def manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    @property
    def manifest(self) -> Manifest:
        """The manifest as it stands on disk. Raises UserError if it cannot be read."""
        path, advice = self.manifest_path, ADVICE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: not JSON ({error}); {advice}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}: expected a JSON object, found {type(values).__name__}; {advice}")
        if not is_text(values):
            raise UserError(f"{path}: damaged (half a surrogate pair, which is no text); {ADVICE}")
        return Manifest.from_json(values, str(path))

    def update(self, **changes: Any) -> Manifest:
        """Replace fields of the manifest (see `Manifest`); mappings are merged into what is there, key by key."""
        with self._lock:
            old = self.manifest
            merged: dict[str, Any] = {
                key: {**getattr(old, key), **value} if isinstance(value, Mapping) else value
                for key, value in changes.items()
            }
            new = replace(old, **merged)
            self._write(new)
            return new

    def add_policy(
        self, name: str, role: PolicyRole, *, best_temperature: float = 0.0, label: str = "", **more: Any
    ) -> None:
        """Enter a policy into the manifest, or change its entry. `more`: other fields of `PolicyEntry`."""
        self.update(policies={name: PolicyEntry(role=role, best_temperature=best_temperature, label=label, **more)})

    def goes_on(self) -> None:
        """Tell the manifest where attempts are added by other versions than the run began with (see `DECISIVE`)."""
        before, now = self.manifest.versions, installed_versions()
        changed = {name: now[name] for name in DECISIVE if significant(before, name) != significant(now, name)}
        if changed:
            self.update(configuration={"continued_with": changed})

    def note(self, text: str) -> None:
        """Add a note for the reader of the report, once."""
        with self._lock:
            if text not in self.manifest.notes:
                self.update(notes=(*self.manifest.notes, text))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase. The time of attempts that failed or were killed counts; `finished(name)` once one ends well.

        The time is saved every few seconds, so that a `kill -9` loses no more than that.
        """
        before = self.manifest.phases.get(name, Phase()).seconds
        began = time.monotonic()
        stop = threading.Event()

        def save(done: bool) -> None:
            self.update(phases={name: Phase(before + time.monotonic() - began, done)})

        def beat() -> None:
            while not stop.wait(HEARTBEAT_SECONDS):
                save(False)

        save(False)
        heart = threading.Thread(target=beat, name=f"time of {name}", daemon=True)
        heart.start()
        done = False
        try:
            yield
            done = True
        finally:
            stop.set()
            heart.join()
            save(done)

    def finished(self, name: str) -> bool:
        """Did the phase end well, in this process or an earlier one?"""
        return self.manifest.phases.get(name, Phase()).done

    def evaluation(self, policy: str) -> Path:
        """Where the held-out rows of a policy are."""
        return self.folder / "evaluations" / f"{_file_name(policy)}.jsonl"

    def validation(self, policy: str) -> Path:
        """Where the validation rows of a policy are: they choose its temperature and checkpoint."""
        return self.folder / "evaluations-validation" / f"{_file_name(policy)}.jsonl"

    def training_log(self, phase: str) -> Path:
        return self.folder / "training" / f"{_file_name(phase)}.jsonl"

    def record_tasks(self, tasks: Iterable[Task], traits: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Keep what a reader of the report wants to know of each task: its failing test and its reference patch.

        Tasks that were kept before stay, as they are now if they are among these. `traits`: task id -> what else is
        known of it, as `regrade.evaluators.analysis.slices.traits_of` gives.
        """
        known = self.tasks()
        known.update((task.id, {**_described(task), **(traits or {}).get(task.id, {})}) for task in tasks)
        lines = [json.dumps(described) + "\n" for described in known.values()]
        journal.write_atomically(self.folder / "tasks.jsonl", "".join(lines))

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Task id -> what `record_tasks` kept of it; empty if it was never called."""
        path = self.folder / "tasks.jsonl"
        return {row["id"]: row for row in _typed(journal.read(path), _KeptTask, path)}

    def checkpoint(self, name: str) -> Path:
        """A folder for weights; not created here, so that its presence can mean that it is whole."""
        return self.folder / "checkpoints" / _file_name(name)

    def log(self, phase: str, step: int, seconds: float, **numbers: float) -> None:
        """Append one step to the training log. `seconds`: wall time since the phase began.

        Keys are free; `execution_seconds`, `generation_seconds` and `training_seconds` of reinforcement learning make
        `share_of_step`. A number that is not finite is written as null: it shows as a gap.
        """
        row = {"phase": phase, "step": step, "seconds": seconds, **finite_values(numbers)}
        journal.append(self.training_log(phase), [row])

    def training(self) -> dict[str, list[dict[str, Any]]]:
        """Phase -> its steps in order. A step done again after a restart counts once, as it was last."""
        phases: dict[str, dict[int, dict[str, Any]]] = {}
        for path in sorted((self.folder / "training").glob("*.jsonl")):
            for row in _typed(journal.read(path), _TrainingStep, path):
                phases.setdefault(row.get("phase", path.stem), {})[row.get("step", 0)] = row
        return {name: [steps[step] for step in sorted(steps)] for name, steps in phases.items()}

    def share_of_step(self) -> dict[str, float]:
        """execution, generation, training -> share: from the manifest, else from the seconds in the training logs."""
        if self.manifest.share_of_step:
            return dict(self.manifest.share_of_step)
        rows = [row for steps in self.training().values() for row in steps]
        steps = [row for row in rows if row.get(STEP_SECONDS["execution"]) is not None]
        spent = {part: sum(float(row.get(key) or 0.0) for row in steps) for part, key in STEP_SECONDS.items()}
        whole = sum(spent.values())
        return {part: seconds / whole for part, seconds in spent.items()} if whole else {}

    def _write(self, manifest: Manifest) -> None:
        journal.write_atomically(self.manifest_path, json.dumps(manifest.to_json(), indent=2) + "\n")


def installed_versions() -> dict[str, str]:
    """Python, the platform, and the packages of `RECORDED_PACKAGES` that are installed."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def significant(versions: Mapping[str, str], name: str) -> list[str]:
    """The parts of a package's version that have to agree."""
    return str(versions.get(name, "unknown")).split(".")[: DECISIVE[name]]


def _described(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "repository": task.repository,
        "instruction": task.instruction,
        "failure": task.failure,
        "fail_to_pass": list(task.fail_to_pass),
        "reference": task.reference.text if task.reference else "",
        "digest": task.digest,
    }


def _file_name(name: str) -> str:
    """Of a name too long for one, its beginning and what tells it from others."""
    found = re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "_"
    if len(found.encode()) <= LONGEST_NAME:
        return found
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{found.encode()[:LONGEST_NAME].decode(errors='ignore')}-{digest}"


class _Written(msgspec.Struct):
    """What a manifest holds on disk; each policy's entry is looked at by itself."""

    name: str = ""
    started: str = ""
    model: str = ""
    sandbox: str = ""
    assurance: str = ""
    seeds: dict[str, int] = {}
    versions: dict[str, str] = {}
    configuration: Any = {}
    inputs: dict[str, str] = {}
    policies: dict[str, Any] = {}
    phases: dict[str, Annotated[float, msgspec.Meta(ge=0, le=1e300)]] = {}
    phases_done: list[str] = []
    share_of_step: dict[str, Annotated[float, msgspec.Meta(ge=0, le=1)]] = {}
    notes: list[str] = []


class _KeptTask(msgspec.Struct):
    """What the report reads of a task."""

    id: str
    repository: str = ""
    instruction: str = ""
    failure: str = ""
    fail_to_pass: list[str] = []
    reference: str = ""


class _TrainingStep(msgspec.Struct):
    """What is read of every training step; its other numbers are free."""

    phase: str = ""
    step: int = 0
    seconds: float | None = None
    execution_seconds: float | None = None
    generation_seconds: float | None = None
    training_seconds: float | None = None


def _typed(rows: Iterable[dict[str, Any]], kind: type[msgspec.Struct], path: Path) -> Iterator[dict[str, Any]]:
    """The rows as they are. Raises UserError naming the first that is none of its kind."""
    for number, row in enumerate(rows, 1):
        converted(row, kind, f"{path}, row {number}: damaged", "delete that row")
        yield row


def _policy(name: str, entry: Any, source: str) -> PolicyEntry:
    if isinstance(entry, PolicyEntry):
        return entry
    return converted(entry, PolicyEntry, f"{source}, policies, {name!r}", ADVICE)
