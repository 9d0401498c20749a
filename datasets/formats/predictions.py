"""Predictions in SWE-bench's format: patches that were made elsewhere, by any agent.

JSON Lines, a JSON list, or a JSON object keyed by instance, each entry with

    instance_id           id of the task
    model_name_or_path    who made it
    model_patch           a unified diff; null or empty: nothing was proposed

Other keys are left alone. What is wrong with a file is told entry by entry, and the other entries are used.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import converted
from regrade.datasets.json_text import parse_json, read_text
from regrade.datasets.patches import Patch

Name = Annotated[str, msgspec.Meta(min_length=1)]


class _PredictionEntry(msgspec.Struct):
    instance_id: Name
    model_name_or_path: Name
    model_patch: str | None


KEYS = _PredictionEntry.__struct_fields__
TOLD_SINGLY = 5
"""More instances than this without a task, or tasks without a prediction, are told in one line: a file for another set
of tasks would be hundreds of lines."""


@dataclass(frozen=True)
class Predictions:
    """What one model proposed."""

    model: str
    patches: Mapping[str, Patch]
    """Instance -> patch; empty where nothing was proposed."""
    doubtful: Mapping[str, str] = field(default_factory=dict)
    """Instance -> why nobody can say what was proposed: two entries that differ."""
    sources: tuple[Path, ...] = ()


@dataclass(frozen=True)
class PredictionFiles:
    """What some files hold."""

    models: tuple[Predictions, ...]
    broken: tuple[str, ...]
    """One line for each entry that cannot be read: it may be of any model and any instance."""
    doubled: tuple[str, ...]
    """One line for each entry of an instance that its model has another entry for."""

    def problems(self, tasks: Collection[str]) -> Iterator[str]:
        """Lines on what is wrong, when these tasks are asked for: what a person should be told."""
        yield from self.broken
        yield from self.doubled
        for found in self.models:
            others = sorted({*found.patches, *found.doubtful} - set(tasks))
            if len(others) > TOLD_SINGLY:
                yield (
                    f"{found.model}: {len(others)} predictions, such as that for {others[0]!r}, are for none of the "
                    f"{len(tasks)} tasks, and are left out"
                )
            else:
                for instance in others:
                    yield f"{found.model}: {instance!r} is none of the {len(tasks)} tasks, and is left out"
            counts = (
                "is unscored, since an entry that cannot be read may be its prediction"
                if self.broken
                else "counts as a patch that changes nothing"
            )
            absent = sorted(set(tasks) - found.patches.keys() - found.doubtful.keys())
            if len(absent) > TOLD_SINGLY:
                yield (
                    f"{found.model}: no prediction for {len(absent)} of the {len(tasks)} tasks, such as "
                    f"{absent[0]!r}; each of them {counts}"
                )
            else:
                for task in absent:
                    yield f"{found.model}: no prediction for task {task!r}, which {counts}"


def read_predictions(paths: Sequence[Path]) -> PredictionFiles:
    """Read files of predictions; a model may be spread over several.

    Raises:
        UserError: a file cannot be read or is not JSON at all, or none of them holds a prediction.
    """
    broken: list[str] = []
    doubled: list[str] = []
    patches: dict[str, dict[str, Patch]] = {}
    doubtful: dict[str, dict[str, str]] = {}
    first: dict[tuple[str, str], str] = {}
    for path in paths:
        for where, value in _entries(path, broken):
            try:
                entry = _entry(value, where)
            except UserError as error:
                broken.append(str(error))
                continue
            instance, model = entry.instance_id, entry.model_name_or_path
            patch = Patch(_whole(entry.model_patch or ""))
            known = patches.setdefault(model, {}).setdefault(instance, patch)
            before = first.setdefault((model, instance), where)
            if before == where:
                continue
            same = known == patch
            then = "which is the same and counts once" if same else "which differs: it is unscored until one is deleted"
            doubled.append(f"{where}: {model} has a prediction for {instance!r} at {before} already, {then}")
            if not same:
                doubtful.setdefault(model, {})[instance] = f"two predictions that differ, at {before} and {where}"
    if not patches:
        listed = "; ".join(broken[:3]) or "they are empty"
        raise UserError(f"no predictions in {', '.join(map(str, paths))}: {listed}")
    for model, instances in doubtful.items():
        for instance in instances:
            del patches[model][instance]
    models = [Predictions(model, found, doubtful.get(model, {}), tuple(paths)) for model, found in patches.items()]
    return PredictionFiles(tuple(models), tuple(broken), tuple(doubled))


def _entries(path: Path, broken: list[str]) -> Iterator[tuple[str, Any]]:
    """(file and place, entry). Lines that are not JSON are told of in `broken`."""
    text = read_text(path)
    if not _is_one_value(path, text):
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                try:
                    yield f"{path}:{number}", parse_json(line, str(path), number)
                except UserError as error:
                    broken.append(str(error))
        return
    value = parse_json(text, str(path))
    if isinstance(value, list):
        yield from ((f"{path}, entry {number}", entry) for number, entry in enumerate(value, start=1))
    elif isinstance(value, dict) and not set(KEYS) & value.keys():
        for name, entry in value.items():
            yield f"{path}, {name!r}", {"instance_id": name, **entry} if isinstance(entry, dict) else entry
    else:
        yield str(path), value


def _is_one_value(path: Path, text: str) -> bool:
    """Is the file one JSON value? By its content: lists in files called .jsonl, and lines in .json, occur."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        start = text.lstrip()[:1]
        return start == "[" or (path.suffix == ".json" and text.lstrip().split("\n")[0].strip() == "{")
    return True


def _whole(text: str) -> str:
    """With the newline that many writers strip off the end, without which `git apply` takes a diff for corrupt."""
    return text if not text.strip() or text.endswith("\n") else text + "\n"


def _entry(value: object, where: str) -> _PredictionEntry:
    """Raises UserError for what is no prediction."""
    known = {key: value[key] for key in KEYS if key in value} if isinstance(value, dict) else value
    entry = converted(known, _PredictionEntry, where)
    try:
        "".join(text or "" for text in msgspec.structs.astuple(entry)).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: it holds half a surrogate pair, which is no text") from error
    return entry
