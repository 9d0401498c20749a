"""A run: a folder with a manifest (inputs, settings, versions, times) and all measurements.

    RUN/manifest.json                   versions, seeds, configuration, policies, phases: see `manifest.py`
    RUN/tasks.jsonl                     descriptions of the held-out tasks, for the report: see `Run.record_tasks`
    RUN/evaluations/POLICY.jsonl        rows of a policy on the held-out tasks, all temperatures
    RUN/evaluations-validation/...      the same on the validation tasks, which choose the temperatures
    RUN/training/PHASE.jsonl            one line a step, any numeric keys (loss, reward, entropy, kl, ...)
    RUN/samples.jsonl                   attempts from along a training
    RUN/checkpoints/NAME/               weights and optimizer states
    RUN/hunks.jsonl                     values of hunks: see `regrade.reports.attribution_store`
    RUN/locks/                          empty files, while several processes share the run: see `Run.writing`
    RUN/summary.json, RUN/report.html   written by `regrade.reports`

Every file is appended line by line or replaced atomically, so a killed run can be opened and continued.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from regrade.datasets.errors import RunBusyError, UserError
from regrade.datasets.json_structs import converted
from regrade.datasets.json_text import is_text, parse_json, read_text
from regrade.datasets.tasks import Task
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.file_locks import locked
from regrade.evaluators.storage.json_numbers import finite_values
from regrade.evaluators.storage.manifest import (
    ADVICE,
    DECISIVE,
    Manifest,
    Phase,
    PolicyEntry,
    PolicyRole,
    installed_versions,
    significant,
)

HEARTBEAT_SECONDS = 5.0
"""The most of a phase's wall time that a `kill -9` loses."""

RECORDED_LATER = ("comparison", "continued_with")
"""Parts of a configuration that a run does not begin with."""

LONGEST_NAME = 150
"""Bytes of a file name without its suffix."""

STEP_SECONDS = {"execution": "execution_seconds", "generation": "generation_seconds", "training": "training_seconds"}
"""Part of a training step -> key of its seconds in the training log."""


class Run:
    """A run's folder. The constructor creates the folder and its manifest, or opens existing ones.

    Each access reads the manifest again and each change replaces it atomically, so several `Run`s of one folder in one
    process agree. Two processes must not change one run at a time, or only other parts of it: see `writing`.
    """

    def __init__(self, folder: Path, *, is_shared: bool = False) -> None:
        """
        Args:
            is_shared: other processes change other parts of the run at the same time. Default: False.

        Raises:
            UserError: the folder can't be created.
        """
        self.folder = folder
        self._is_shared = is_shared
        self._lock = threading.RLock()  # the heartbeat thread of a phase writes too
        if not self.manifest_path.exists():
            try:
                self._write(Manifest(name=folder.name, started=_now(), versions=installed_versions()))
            except OSError as error:
                why = error.strerror or error
                raise UserError(
                    f"the run's folder {str(folder)!r} can't be written: {why}; choose another folder"
                ) from error

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[Run]:
        """The run of a folder. If the block raises before anything is recorded, a new run leaves nothing behind."""
        is_new = not (folder / "manifest.json").exists()
        present = set(folder.iterdir()) if folder.is_dir() else set()
        absent = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            yield cls(folder)
        except BaseException:
            # Rows, and answers of models: an interrupted run goes on from them.
            if is_new and not any(path.stat().st_size for path in folder.glob("evaluations*/*.*") if path.is_file()):
                _remove(folder, present, absent)
            raise

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open an existing run. Raises UserError if there is none."""
        if not (folder / "manifest.json").exists():
            advice = "give a folder that `regrade demo`, `regrade train` or `regrade evaluate` wrote"
            raise UserError(f"{folder} is not a run, as it has no manifest.json; {advice}")
        return cls(folder)

    @contextmanager
    def writing(self, part: str = "", *, wait: bool = False) -> Iterator[None]:
        """Lock the run against other writing processes: each would miss the rows that the other writes.

        Args:
            part: lock this part of the run only, such as the phases of one policy. Default: all of it.
            wait: for a process that holds the lock.

        Raises:
            RunBusyError: another process holds the lock. (A killed process releases it.)
        """
        with _locked_or_busy(self._lock_of(f"part-{part}") if part else self.folder, self.folder, wait):
            yield

    @classmethod
    @contextmanager
    def reserved(cls, folder: Path, *, wait: bool = False) -> Iterator[Run]:
        """The run of a folder, locked as by `writing` before its manifest exists: several processes may begin it.

        Args:
            wait: for a process that holds the lock.

        Raises:
            RunBusyError: another process holds the lock.
            UserError: the folder can't be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"the run's folder {str(folder)!r} can't be made: {error.strerror}; choose another folder"
            ) from error
        with _locked_or_busy(folder, folder, wait):
            yield cls(folder)

    def remove_locks(self) -> None:
        """Remove the files that locked parts of the run; nobody may share the run any more."""
        shutil.rmtree(self.folder / "locks", ignore_errors=True)

    def _lock_of(self, name: str) -> Path:
        path = self.folder / "locks" / _file_name(name)
        path.parent.mkdir(exist_ok=True)
        path.touch()
        return path

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Nobody else changes the manifest meanwhile."""
        with self._lock:
            if not self._is_shared:
                yield
                return
            with locked(self._lock_of("manifest"), wait=True):
                yield

    @property
    def manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    @property
    def manifest(self) -> Manifest:
        """The manifest on disk. Raises UserError if it cannot be read."""
        path, advice = self.manifest_path, ADVICE
        try:
            values = parse_json(read_text(path), str(path))
        except UserError as error:
            raise UserError(f"{error}; {advice}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}: expected a JSON object, found {type(values).__name__}; {advice}")
        if not is_text(values):
            raise UserError(f"{path}: damaged (it contains a lone surrogate, which is not text); {ADVICE}")
        return Manifest.from_json(values, str(path))

    def update(self, **changes: Any) -> Manifest:
        """Replace fields of the manifest (see `Manifest`); mappings are merged key by key."""
        with self._changing():
            return self._update(changes)

    def _update(self, changes: Mapping[str, Any]) -> Manifest:
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
        """Add a policy to the manifest, or replace its entry. `more`: other fields of `PolicyEntry`."""
        self.update(policies={name: PolicyEntry(role=role, best_temperature=best_temperature, label=label, **more)})

    def record_continuation(self) -> None:
        """Record the current versions (see `DECISIVE`) in the manifest if they differ from those at the run's start."""
        before, now = self.manifest.versions, installed_versions()
        changed = {name: now[name] for name in DECISIVE if significant(before, name) != significant(now, name)}
        if changed:
            self.update(configuration={"continued_with": changed})

    def note(self, text: str) -> None:
        """Add a note for readers of the report; an equal note is added once."""
        with self._changing():
            notes = self.manifest.notes
            if text not in notes:
                self._update({"notes": (*notes, text)})

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the wall time of a phase, failed and killed attempts included. Success makes `finished(name)` true.

        The time is saved every `HEARTBEAT_SECONDS`, the most that a `kill -9` loses.
        """
        before = self.manifest.phases.get(name, Phase()).seconds
        with _saved_regularly(
            lambda seconds, is_done: self.update(phases={name: Phase(before + seconds, is_done)}), name
        ):
            yield

    @contextmanager
    def wall_time(self) -> Iterator[None]:
        """Measure the wall time of a run whose phases overlap, as `phase` does that of one."""
        before = self.manifest.wall_seconds
        with _saved_regularly(lambda seconds, _is_done: self.update(wall_seconds=before + seconds), "the run"):
            yield

    def finished(self, name: str) -> bool:
        """Did the phase succeed, in this process or an earlier one?"""
        return self.manifest.phases.get(name, Phase()).done

    def evaluation(self, policy: str) -> Path:
        """Path of a policy's rows on held-out tasks."""
        return self.evaluation_of(self.folder, policy)

    @staticmethod
    def evaluation_of(folder: Path, policy: str) -> Path:
        """`evaluation` of a run that may not exist yet."""
        return folder / "evaluations" / f"{_file_name(policy)}.jsonl"

    def validation(self, policy: str) -> Path:
        """Path of a policy's rows on validation tasks, which choose its temperature and checkpoint."""
        return self.folder / "evaluations-validation" / f"{_file_name(policy)}.jsonl"

    @property
    def samples(self) -> Path:
        """Attempts from along the training, for its page."""
        return self.folder / "samples.jsonl"

    def training_log(self, phase: str) -> Path:
        return self.folder / "training" / f"{_file_name(phase)}.jsonl"

    def record_tasks(self, tasks: Iterable[Task], traits: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Store a description of each task for the report: its instruction, failing tests and reference patch.

        Tasks recorded earlier stay; those among `tasks` are updated. `traits`: task id -> its traits, as
        `regrade.evaluators.analysis.slices.traits_of` returns them.
        """
        descriptions = self.tasks()
        descriptions.update((task.id, {**_description(task), **(traits or {}).get(task.id, {})}) for task in tasks)
        lines = [json.dumps(description) + "\n" for description in descriptions.values()]
        journal.write_atomically(self.folder / "tasks.jsonl", "".join(lines))

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Task id -> its description by `record_tasks`; empty if that was never called."""
        path = self.folder / "tasks.jsonl"
        rows = list(_typed(journal.read(path), _StoredTask, path))
        for number, row in enumerate(rows, 1):
            if not is_text(row):
                raise UserError(f"{path}, task {number}: it contains a lone surrogate, which is not text; {ADVICE}")
        return {row["id"]: row for row in rows}

    def checkpoint(self, name: str) -> Path:
        """A folder for weights. It is not created here: an existing folder is a complete checkpoint."""
        return self.folder / "checkpoints" / _file_name(name)

    def log(self, phase: str, step: int, seconds: float, **numbers: float) -> None:
        """Append one step to the training log. `seconds`: wall time since the phase began.

        Keys are free; `share_of_step` uses `execution_seconds`, `generation_seconds` and `training_seconds` of RL. A
        number that is not finite is written as null, a gap in a chart.
        """
        row = {"phase": phase, "step": step, "seconds": seconds, **finite_values(numbers)}
        journal.append(self.training_log(phase), [row])

    def rewind(self, phase: str, step: int = 0) -> None:
        """Remove from a phase's training log what follows `step`: a training goes on from there, and logs it again.

        With 0, all of it.
        """
        path = self.training_log(phase)
        if path.exists():
            rows = _typed(journal.read(path), _TrainingStep, path) if step else ()
            journal.write_atomically(path, "".join(json.dumps(row) + "\n" for row in _until(rows, step)))

    def rewind_samples(self, step: int) -> None:
        """Likewise the sampled attempts of later steps."""
        if self.samples.exists():
            rows = _typed(journal.read(self.samples), _TrainingStep, self.samples)
            kept = [json.dumps(row) + "\n" for row in rows if row.get("step", 0) <= step]
            journal.write_atomically(self.samples, "".join(kept))

    def configure(self, configuration: Mapping[str, Any]) -> None:
        """Record the configuration of a run that is begun, or goes on.

        A run that failed before it did anything, such as for want of its model, may begin with another one.

        Raises:
            UserError: the run was begun with another one.
        """
        plain = json.loads(json.dumps(configuration))
        if all(path == self.manifest_path for path in self.folder.iterdir()):
            with self._lock:
                self._write(replace(self.manifest, configuration=plain, started=_now()))
            return
        stored = {key: value for key, value in self.manifest.configuration.items() if key not in RECORDED_LATER}
        changed = list(_differences("", stored, plain)) if stored else []
        if changed:
            more = f", and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise UserError(
                f"{self.folder} holds a run with other settings: {', '.join(changed[:3])}{more}; give another folder, "
                "or the settings of this run to go on with it"
            )
        self.update(configuration=plain)

    def training(self) -> dict[str, list[dict[str, Any]]]:
        """Phase -> its steps in order. Of a step repeated after a restart the last line counts."""
        phases: dict[str, dict[int, dict[str, Any]]] = {}
        for path in sorted((self.folder / "training").glob("*.jsonl")):
            for row in _typed(journal.read(path), _TrainingStep, path):
                phases.setdefault(row.get("phase", path.stem), {})[row.get("step", 0)] = row
        return {name: [steps[step] for step in sorted(steps)] for name, steps in phases.items()}

    def share_of_step(self) -> dict[str, float]:
        """execution, generation, training -> share of the wall time: from the manifest, else from the training logs."""
        if self.manifest.share_of_step:
            return dict(self.manifest.share_of_step)
        rows = [row for steps in self.training().values() for row in steps]
        steps = [row for row in rows if row.get(STEP_SECONDS["execution"]) is not None]
        spent = {part: sum(float(row.get(key) or 0.0) for row in steps) for part, key in STEP_SECONDS.items()}
        whole = sum(spent.values())
        return {part: seconds / whole for part, seconds in spent.items()} if whole else {}

    def _write(self, manifest: Manifest) -> None:
        journal.write_atomically(self.manifest_path, json.dumps(manifest.to_json(), indent=2) + "\n")


@contextmanager
def _locked_or_busy(path: Path, folder: Path, wait: bool) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path, wait=wait))
        except BlockingIOError as error:
            raise RunBusyError(
                f"another process is writing into {folder}: wait for it, or give another folder"
            ) from error
        yield


@contextmanager
def _saved_regularly(save: Callable[[float, bool], object], name: str) -> Iterator[None]:
    """Call `save` with the seconds so far and whether the `with` block has succeeded: at its beginning, every
    `HEARTBEAT_SECONDS`, and at its end."""
    began = time.monotonic()
    stop = threading.Event()

    def save_until_stopped() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            save(time.monotonic() - began, False)

    save(0.0, False)
    heartbeat = threading.Thread(target=save_until_stopped, name=f"time of {name}", daemon=True)
    heartbeat.start()
    is_done = False
    try:
        yield
        is_done = True
    finally:
        stop.set()
        heartbeat.join()
        save(time.monotonic() - began, is_done)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _description(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "repository": task.repository,
        "function": f"{task.target.file}::{task.target.function}" if task.target else "",
        "instruction": task.instruction,
        "failure": task.failure,
        "fail_to_pass": list(task.fail_to_pass),
        "reference": task.reference.text if task.reference else "",
        "shown": None if task.shown.tests is None else list(task.shown.tests),
        "digest": task.digest,
    }


def _differences(name: str, before: Any, now: Any) -> Iterator[str]:
    """Each part of a setting that differs, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            yield from _differences(f"{name}.{key}".lstrip("."), before.get(key), now.get(key))
    elif before != now:
        yield f"{name} was {json.dumps(before)} and is now {json.dumps(now)}"


def _until(rows: Iterable[dict[str, Any]], step: int) -> Iterator[dict[str, Any]]:
    """The rows up to a step, without what was logged after the steps, such as a summary."""
    last = 0
    for row in rows:
        if not last <= row.get("step", 0) <= step:
            return
        last = row.get("step", 0)
        yield row


def _remove(folder: Path, present: Collection[Path], absent: Sequence[Path]) -> None:
    """Remove all but what was present, and of its parents those that were absent and are empty now."""
    for path in set(folder.iterdir()) - set(present) if folder.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in absent:
        with suppress(OSError):  # not empty: another process writes there
            path.rmdir()


def _file_name(name: str) -> str:
    """The name without special characters; of a name that is too long, its start and a digest."""
    safe = re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "_"
    if len(safe.encode()) <= LONGEST_NAME:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{safe.encode()[:LONGEST_NAME].decode(errors='ignore')}-{digest}"


class _StoredTask(msgspec.Struct):
    """The description of a task on disk."""

    id: str
    repository: str = ""
    instruction: str = ""
    failure: str = ""
    fail_to_pass: list[str] = []
    reference: str = ""


class _TrainingStep(msgspec.Struct):
    """The typed keys of a training step; other keys are free."""

    phase: str = ""
    step: int = 0
    seconds: float | None = None
    execution_seconds: float | None = None
    generation_seconds: float | None = None
    training_seconds: float | None = None


def _typed(rows: Iterable[dict[str, Any]], kind: type[msgspec.Struct], path: Path) -> Iterator[dict[str, Any]]:
    """The rows, unchanged. Raises UserError, which names the first invalid row."""
    for number, row in enumerate(rows, 1):
        converted(row, kind, f"{path}, row {number}: damaged", "delete that row")
        yield row
