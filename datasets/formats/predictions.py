"""Predictions in SWE-bench's format: patches of any agent.

JSON Lines, a JSON list, or a JSON object keyed by instance, each entry with

    instance_id           id of the task
    model_name_or_path    name of the model
    model_patch           a unified diff; null or empty: no proposal

Other keys are ignored. Each wrong entry of a file is reported, and the other entries are used.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import converted
from regrade.datasets.json_text import parse_json, read_text
from regrade.datasets.patches import Patch
from regrade.datasets.plurals import counted, plural

Name = Annotated[str, msgspec.Meta(min_length=1)]


class _PredictionEntry(msgspec.Struct):
    instance_id: Name
    model_name_or_path: Name
    model_patch: str | None


KEYS = _PredictionEntry.__struct_fields__
LISTED_SINGLY = 5
"""Up to this number, instances without a task and tasks without a prediction have one line each; more share one line,
because a file for another set of tasks has hundreds."""


@dataclass(frozen=True)
class Predictions:
    """The predictions of one model."""

    model: str
    patches: Mapping[str, Patch]
    """Instance -> patch; an empty one if the model proposed nothing."""
    doubtful: Mapping[str, str] = field(default_factory=dict)
    """Instance with an ambiguous prediction -> the reason: two different entries."""
    sources: tuple[Path, ...] = ()


@dataclass(frozen=True)
class PredictionFiles:
    """The content of some files of predictions."""

    models: tuple[Predictions, ...]
    broken: tuple[str, ...]
    """One line for each unreadable entry, which may be of any model and any instance."""
    doubled: tuple[str, ...]
    """One line for each further entry of a model for an instance, and for each model with files that overlap."""

    def check_known(self, tasks: Collection[str]) -> None:
        """Raises UserError if the predictions of a model are for other tasks: more of its ids are unknown than known,
        and as many tasks lack a prediction. They would all count as patches that change nothing."""
        known = set(tasks)
        for predictions in self.models:
            instances = predictions.patches.keys() | predictions.doubtful.keys()
            unknown, absent = sorted(instances - known), sorted(known - instances)
            if min(len(unknown), len(absent)) > len(instances & known):
                raise UserError(
                    f"{', '.join(map(str, predictions.sources))}: {len(unknown)} of {len(instances)} ids of "
                    f"{predictions.model!r}, such as {unknown[0]!r}, are none of the {counted(len(known), 'task')}, "
                    f"such as {absent[0]!r}: give the tasks that these predictions are for"
                )

    def problems(self, tasks: Collection[str]) -> Iterator[str]:
        """One line for each problem in scoring these tasks, for the user."""
        yield from self.broken
        yield from self.doubled
        treatment = (
            "is unscored, because an unreadable entry may be its prediction"
            if self.broken
            else "counts as a patch that changes nothing"
        )
        for predictions in self.models:
            instances = predictions.patches.keys() | predictions.doubtful.keys()
            yield from _problems(predictions.model, instances, set(tasks), treatment)


def _problems(model: str, instances: Set[str], tasks: set[str], treatment: str) -> Iterator[str]:
    extra, absent = sorted(instances - tasks), sorted(tasks - instances)
    if len(extra) > LISTED_SINGLY:
        yield (
            f"{model}: {len(extra)} predictions, such as the one for {extra[0]!r}, are for none of the "
            f"{len(tasks)} tasks, and are ignored"
        )
    else:
        for instance in extra:
            yield f"{model}: {instance!r} is none of the {len(tasks)} tasks, and is ignored"
    if len(absent) > LISTED_SINGLY:
        yield (
            f"{model}: no prediction for {len(absent)} of the {len(tasks)} tasks, such as {absent[0]!r}; each of them "
            f"{treatment}"
        )
    else:
        for task in absent:
            yield f"{model}: no prediction for task {task!r}, which {treatment}"


def read_predictions(paths: Sequence[Path]) -> PredictionFiles:
    """Read files of predictions. Several files may contain predictions of one model; if they differ at an instance,
    each file is a policy of its own.

    Raises:
        UserError: a file cannot be read or is not JSON, or no file contains a prediction.
    """
    broken: list[str] = []
    doubled: list[str] = []
    files = [_read(path, broken, doubled) for path in paths]
    models = [
        predictions
        for model in dict.fromkeys(name for of_file in files for name in of_file)
        for predictions in _of_model([of_file[model] for of_file in files if model in of_file], doubled)
    ]
    if not models:
        reasons = "; ".join(broken[:3]) or "they are empty"
        raise UserError(f"no predictions in {', '.join(map(str, paths))}: {reasons}")
    return PredictionFiles(tuple(models), tuple(broken), tuple(doubled))


def _read(path: Path, broken: list[str], doubled: list[str]) -> dict[str, Predictions]:
    """Model -> its predictions in one file."""
    patches: dict[str, dict[str, Patch]] = {}
    doubtful: dict[str, dict[str, str]] = {}
    first: dict[tuple[str, str], str] = {}
    for where, value in _entries(path, broken):
        try:
            entry = _entry(value, where)
        except UserError as error:
            broken.append(str(error))
            continue
        instance, model = entry.instance_id, entry.model_name_or_path
        patch = Patch(entry.model_patch or "")
        first_patch = patches.setdefault(model, {}).setdefault(instance, patch)
        before = first.setdefault((model, instance), where)
        if before == where:
            continue
        effect = "which is equal: it counts once"
        if not _is_same(first_patch, patch):
            effect = "which differs: unscored until one is deleted"
            doubtful.setdefault(model, {})[instance] = f"two different predictions, at {before} and {where}"
        doubled.append(f"{where}: {model} already has a prediction for {instance!r} at {before}, {effect}")
    for model, instances in doubtful.items():
        for instance in instances:
            del patches[model][instance]
    return {model: Predictions(model, diffs, doubtful.get(model, {}), (path,)) for model, diffs in patches.items()}


def _is_same(one: Patch, other: Patch) -> bool:
    return one.text.rstrip("\n") == other.text.rstrip("\n")


def _of_model(files: Sequence[Predictions], doubled: list[str]) -> list[Predictions]:
    """The predictions of one model: together, or a policy for each file if two files differ on an instance."""
    model = files[0].model
    sources = tuple(path for of_file in files for path in of_file.sources)
    patches: dict[str, Patch] = {}
    shared, differing = set[str](), set[str]()
    for of_file in files:
        for instance, patch in of_file.patches.items():
            before = patches.setdefault(instance, patch)
            if before is not patch:
                shared.add(instance)
                if not _is_same(before, patch):
                    differing.add(instance)
    listed = ", ".join(map(str, sources))
    if differing:
        doubled.append(
            f"{model}: its files {listed} differ at {counted(len(differing), 'task')}, such as {min(differing)!r}: "
            "each file is a policy of its own"
        )
        names = distinct_names(sources)
        return [replace(of_file, model=f"{model} ({name})") for of_file, name in zip(files, names, strict=True)]
    if shared:
        doubled.append(
            f"{model}: {counted(len(shared), 'task')}, such as {min(shared)!r}, {plural(len(shared), 'has', 'have')} "
            f"equal predictions in several of {listed}, which count once"
        )
    doubtful = {name: why for of_file in files for name, why in of_file.doubtful.items()}
    known = {name: patch for name, patch in patches.items() if name not in doubtful}
    return [Predictions(model, known, doubtful, sources)]


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart, such as `a/preds.jsonl` and `b/preds.jsonl`."""
    absolute = [path.absolute() for path in paths]
    for depth in range(1, max(len(path.parts) for path in absolute) + 1):
        names = ["/".join(path.parts[-depth:]) for path in absolute]
        if len(set(names)) == len(names):
            return names
    return [f"{path}, {number}" for number, path in enumerate(paths, 1)]


def _entries(path: Path, broken: list[str]) -> Iterator[tuple[str, Any]]:
    """(file and place, entry). Adds a line to `broken` for each line of the file that is not JSON."""
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
    """Is the file one JSON value? Its content decides: some .jsonl files contain a list, some .json files lines."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        start = text.lstrip()[:1]
        return start == "[" or (path.suffix == ".json" and text.lstrip().split("\n")[0].strip() == "{")
    return True


def _entry(value: object, where: str) -> _PredictionEntry:
    """Raises UserError if the value is not a prediction."""
    fields = {key: value[key] for key in KEYS if key in value} if isinstance(value, dict) else value
    entry = converted(fields, _PredictionEntry, where)
    try:
        "".join(text or "" for text in msgspec.structs.astuple(entry)).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: it contains a lone surrogate, which is not valid text") from error
    return entry
