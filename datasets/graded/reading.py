"""Graded results of any known format, gathered into policies: which result belongs to which policy and attempt.

The format is recognised from the content of each file. The deepest source of an attempt decides: a report, then a run
log, then a summary; predictions say what was submitted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.graded import (
    harbor,
    inspect_logs,
    openhands,
    run_logs,
    submissions,
    summaries,
    swe_bench,
    tables,
)
from regrade.datasets.graded.documents import Document, documents
from regrade.datasets.graded.records import Depth, Findings, GradedResult
from regrade.datasets.json_text import is_text

ResultReader = Callable[[Document, Findings], Iterator[GradedResult] | None]
FORMATS: Mapping[str, ResultReader] = {
    module.NAME: module.results
    for module in (swe_bench, summaries, harbor, openhands, inspect_logs, tables, submissions, run_logs)
}
"""Name of a format -> its reader, which returns None for a document of another format."""
NAMES_NOTHING = frozenset({"logs", "log", "eval_logs", "trajs", "results", "run_evaluation", "evaluation_logs"})
"""Folders that programs name so for every policy: the folder above names the policy."""
UNRECOGNISED = "files of no known format"
FILLED = ("patch", "empty", "model", "why", "resolved", "applied", "reward", "tokens", "seconds", "repository")
"""Fields that a shallower source may add to a deeper one."""


@dataclass(kw_only=True)
class GradedPolicy:
    """A policy's results: (run, sample) -> instance -> result."""

    name: str
    source: Path
    model: str = ""
    formats: frozenset[str] = frozenset()
    samples: dict[tuple[int, int], dict[str, GradedResult]] = field(default_factory=dict)
    run_sources: dict[int, Path] = field(default_factory=dict)
    """Run -> its own source, if the runs come from several."""

    @property
    def instances(self) -> set[str]:
        return {instance for results in self.samples.values() for instance in results}


@dataclass(frozen=True)
class _ResultSet:
    """Key of the results of one policy at one run and sample in one place."""

    place: Path
    policy: str
    run: int | None
    sample: int | None


def read_policies(source: Path, findings: Findings, name: str | None = None) -> list[GradedPolicy]:
    """The policies of a source: a file, or a folder with the results of one or several policies.

    Args:
        name: of the format; None: each file's content decides.

    Raises:
        UserError: it holds no graded result, or only predictions.
    """
    source = source.absolute()
    found = [*_results(source, findings, name)]
    if not found:
        known = ", ".join(FORMATS)
        why = "; ".join(line for line in findings.lines() if not line.startswith(UNRECOGNISED))
        raise UserError(f"{source}: no graded results of a known format ({known}){why and f' ({why})'}")
    groups = _grouped(found, source, findings)
    if not groups:
        raise UserError(
            f"{source}: predictions only, which are not graded; give the reports of their grading too, or grade them "
            "with `regrade evaluate`"
        )
    return _policies(groups, source, findings)


def _results(source: Path, findings: Findings, name: str | None) -> Iterator[GradedResult]:
    if name is not None and name not in FORMATS:
        raise UserError(f"no format {name!r}; known formats: {', '.join(FORMATS)}")
    readers = [FORMATS[name]] if name else [*FORMATS.values()]
    if name and name != submissions.NAME:
        readers.append(submissions.results)
    for document in documents(source, findings):
        for reader in readers:
            results = reader(document, findings)
            if results is not None:
                yield from (result for result in results if _has_names(result, document, findings))
                break
        else:
            findings.add(UNRECOGNISED, str(document.path))


def _has_names(result: GradedResult, document: Document, findings: Findings) -> bool:
    is_named = bool(result.instance) and is_text([result.instance, result.policy, result.model, result.agent])
    if not is_named:
        findings.add("results whose names are empty or no text, left out", f"{document.path}: {result.instance}")
    return is_named


def _grouped(
    found: Sequence[GradedResult], source: Path, findings: Findings
) -> dict[_ResultSet, dict[str, GradedResult]]:
    """The results of each policy and sample; claims of summaries and submissions are added to the deeper results."""
    deepest = max(result.depth for result in found)
    if deepest is Depth.SUBMISSION:
        return {}
    least = Depth.LOG if deepest >= Depth.LOG else Depth.RESOLVED
    groups: dict[_ResultSet, dict[str, GradedResult]] = defaultdict(dict)
    for result in _numbered([result for result in found if result.depth >= least]):
        _add(groups[_ResultSet(result.place, result.policy, result.run, result.sample)], result, findings)
    for depth in (Depth.RESOLVED, Depth.SUBMISSION):
        _attach([result for result in found if result.depth is depth and depth < least], groups, source, findings)
    return groups


def _numbered(found: Sequence[GradedResult]) -> Iterator[GradedResult]:
    """The results, with numbers for attempts that have names, and a name for each agent and model of a job."""
    named = [result for result in found if result.attempt]
    agents: dict[Path, set[tuple[str, str]]] = defaultdict(set)
    attempts: dict[tuple[Path, str, str, str], list[str]] = defaultdict(list)
    for result in sorted(named, key=lambda result: result.attempt):
        agents[result.place].add((result.agent, result.model))
        attempts[result.place, result.agent, result.model, result.instance].append(result.attempt)
    for result in found:
        if not result.attempt:
            yield result
            continue
        same = attempts[result.place, result.agent, result.model, result.instance]
        several = len(agents[result.place]) > 1
        name = " ".join(filter(None, (result.agent, result.model))) if several else ""
        yield replace(result, policy=name, sample=same.index(result.attempt))


def _add(results: dict[str, GradedResult], new: GradedResult, findings: Findings) -> None:
    """Add a result, beside those of other sources for the same attempt."""
    old = results.get(new.instance)
    if old is None:
        results[new.instance] = new
    elif old.depth != new.depth:
        deep, shallow = (old, new) if old.depth > new.depth else (new, old)
        results[new.instance] = _filled(deep, shallow)
    elif _outcome(old) == _outcome(new):
        findings.add("doubled results, which are equal", new.instance)
    else:
        findings.add("doubled results, which differ: their outcome is missing", new.instance)
        results[new.instance] = GradedResult(
            instance=new.instance, place=new.place, depth=new.depth, source=new.source, model=new.model,
            repository=new.repository, lost=True, why="two results that differ",
        )  # fmt: skip


def _outcome(result: GradedResult) -> object:
    return replace(result, place=Path(), patch=None, why="", source="")


def _filled(deep: GradedResult, shallow: GradedResult) -> GradedResult:
    """The deeper result, with what only the shallower one says."""
    added = {name: getattr(shallow, name) for name in FILLED if getattr(deep, name) in (None, "")}
    return replace(deep, timed_out=deep.timed_out or shallow.timed_out, **added)


def _attach(
    shallow: Sequence[GradedResult],
    groups: dict[_ResultSet, dict[str, GradedResult]],
    source: Path,
    findings: Findings,
) -> None:
    """Add claims or submissions to the nearest results: those in or below their folder, else beside it."""
    by_file: dict[tuple[Path, str], dict[str, GradedResult]] = defaultdict(dict)
    for result in shallow:
        _submitted(by_file[result.place, result.model], result, findings)
    near = {place: _nearest(place, groups, source) for place, _ in by_file}
    for (place, model), results in by_file.items():
        chosen = near[place]
        if len(chosen) > 1:
            rivals = {other for other, _ in by_file if near[other] == chosen}
            named = [key for key in chosen if _is_named(key.place, place, model)]
            chosen = named or (chosen if len(rivals) == 1 else [])
        if not chosen:
            findings.add("summaries and predictions of which it is unclear whose they are, ignored", str(place))
        for key in chosen:
            if len(results) < len(groups[key]) and next(iter(results.values())).depth is Depth.RESOLVED:
                count = f"{len(results)} of {len(groups[key])}"
                findings.add("summaries that cover fewer instances than the results", f"{place}: {count}")
            for instance, result in results.items():
                old = groups[key].get(instance)
                if old and old.why and result.resolved:
                    findings.add("resolved by a summary, though a deeper source has no outcome: missing", instance)
                    result = replace(result, resolved=None)
                groups[key][instance] = _filled(old, result) if old else replace(result, place=key.place)


def _is_named(results: Path, file: Path, model: str) -> bool:
    """Do these results bear the model's name, or the summary's: `MODEL.RUN.json` of `RUN/MODEL/`?"""
    if model:
        return model.replace("/", "__") in results.parts
    return file.stem == f"{results.name}.{results.parent.name}"


def _submitted(results: dict[str, GradedResult], new: GradedResult, findings: Findings) -> None:
    old = results.setdefault(new.instance, new)
    if old is new or new.depth is not Depth.SUBMISSION:
        return
    if (old.patch or "").rstrip("\n") == (new.patch or "").rstrip("\n"):
        findings.add("doubled predictions, which are equal", new.instance)
    else:
        findings.add("doubled predictions, which differ: which one was graded is unknown", new.instance)
        results[new.instance] = replace(old, patch=None, empty=None)


def _nearest(place: Path, groups: Iterable[_ResultSet], source: Path) -> list[_ResultSet]:
    keys = [*groups]
    for folder in (place, *place.parents):
        inside = [key for key in keys if key.place == folder or folder in key.place.parents]
        if inside or folder == source:
            return inside
    return keys


def _policies(
    groups: Mapping[_ResultSet, dict[str, GradedResult]], source: Path, findings: Findings
) -> list[GradedPolicy]:
    """One policy for each place, or for each name that a table gives."""
    names = _names(set(groups), source)
    policies: dict[str, GradedPolicy] = {}
    for key, results in groups.items():
        models = {result.model for result in results.values() if result.model}
        policy = policies.setdefault(
            names[key],
            GradedPolicy(
                name=names[key],
                source=source,
                model=models.pop() if len(models) == 1 else "",
                formats=frozenset(result.source for result in results.values()),
            ),
        )
        known = policy.samples.setdefault((key.run or 0, key.sample or 0), {})
        for result in results.values():
            _add(known, result, findings)
    return [*policies.values()]


def _names(keys: set[_ResultSet], source: Path) -> dict[_ResultSet, str]:
    """The name that the source gives, else that of its folder or file; both where one name stands in several places."""
    places = {key.place for key in keys}
    long = {place: _own_name(source if len(places) == 1 else place, source) for place in places}
    short = {place: name.rpartition("/")[0] if place.name in NAMES_NOTHING else name for place, name in long.items()}
    is_clear = all(short.values()) and len({*short.values()}) == len(short)
    own = short if is_clear else long
    spread: dict[str, set[Path]] = defaultdict(set)
    for key in keys:
        spread[key.policy].add(key.place)
    return {
        key: own[key.place] if not key.policy else key.policy if len(spread[key.policy]) == 1
        else f"{key.policy} ({own[key.place]})"
        for key in keys
    }  # fmt: skip


def _own_name(place: Path, source: Path) -> str:
    if place != source:
        relative = place.relative_to(source) if place.is_relative_to(source) else place
        return "/".join((*relative.parts[:-1], relative.stem if place.is_file() else relative.name))
    while place.name.lower() in NAMES_NOTHING and place.parent.name:
        place = place.parent
    return place.stem if place.is_file() else place.name
