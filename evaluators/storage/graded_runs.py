"""Graded results of other programs as a run: `regrade compare` and the report work on it as on an evaluation."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.graded.instances import Instance, read_instances
from regrade.datasets.graded.reading import GradedPolicy, read_policies
from regrade.datasets.graded.records import Depth, Findings, GradedResult
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.episode_file import add_episodes, episodes_path
from regrade.evaluators.storage.graded_rows import (
    NO_RESULT,
    Grading,
    Unreported,
    graded_row,
    says_more_than_resolved,
)
from regrade.evaluators.storage.graded_trajectories import AttemptSource, joined_episodes
from regrade.evaluators.storage.manifest import Manifest, PolicyEntry
from regrade.evaluators.storage.rows import OUTCOMES, checked, load_rows
from regrade.evaluators.storage.run import Run

IMPORTED = "imported"
"""The key of a run's configuration that describes the import."""
MOST_NOTES = 40


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Outcomes of one policy."""

    policy: str
    attempts: int
    fixed: int
    fix_known: int
    broke: int
    broke_known: int
    fixed_but_broke: int
    clean: int
    clean_known: int
    """Attempts whose clean fix is known; the rest has no outcome."""

    @property
    def missing(self) -> int:
        return self.attempts - self.clean_known


@dataclass(kw_only=True)
class GradedImport:
    """Result of `read_graded`: rows of each policy, and what was odd."""

    rows: dict[str, list[dict[str, Any]]]
    models: dict[str, str] = field(default_factory=dict)
    sources: dict[str, list[str]] = field(default_factory=dict)
    formats: tuple[str, ...] = ()
    instances: Mapping[str, Instance] = field(default_factory=dict)
    grading: Grading = field(default_factory=Grading)
    findings: Findings = field(default_factory=Findings)
    origins: list[AttemptSource] = field(default_factory=list)
    """Of each policy and run, for its trajectories."""
    episodes: dict[str, int] = field(default_factory=dict)
    """Policy -> its attempts with a trajectory; `write_graded` joins them."""

    def counts(self) -> list[Counts]:
        return [_counts(name, rows) for name, rows in self.rows.items()]


def read_graded(
    sources: Sequence[Path],
    *,
    policies: Sequence[str] = (),
    tasks: Sequence[Path] = (),
    gold: Path | None = None,
    unreported: Unreported = "missing",
    format_name: str | None = None,
) -> GradedImport:
    """Read graded results, without executing anything.

    Args:
        sources: files or folders, each with the results of one policy or of several.
        policies: names, one a source; one name for all: the sources are its runs.
        tasks: files of instances; their lists of tests, and the instances that count.
        gold: results of the reference patches; PASS_TO_PASS tests that these break are set aside.
        unreported: how an attempt without an outcome counts.
        format_name: None: the content of each file decides.

    Raises:
        UserError: a source has no graded results, or the names do not fit the sources.
    """
    findings = Findings()
    instances = read_instances(tasks, findings) if tasks else {}
    found = _named([read_policies(source, findings, format_name) for source in sources], policies, findings)
    models = Counter(policy.model for policy in found if policy.model)
    for policy in found:
        if models[policy.model] > 1:
            findings.add("policies of one model, kept apart", f"{policy.name} ({policy.model})")
    grading = Grading(instances=instances, unreported=unreported)
    if gold is not None:
        grading = replace(grading, set_aside=_set_aside(gold, grading, format_name, findings))
    population = sorted(instances) or sorted({name for policy in found for name in policy.instances})
    rows = {policy.name: _rows(policy, population, grading, findings) for policy in found}
    _refuse_without_outcomes(found, rows)
    return GradedImport(
        rows=rows,
        models={policy.name: policy.model for policy in found},
        sources={policy.name: [str(policy.source)] for policy in found},
        formats=tuple(sorted({name for policy in found for name in policy.formats})),
        instances=instances,
        grading=grading,
        findings=findings,
        origins=[
            AttemptSource(policy.name, run, policy.run_sources.get(run, policy.source), policy.model)
            for policy in found
            for run in sorted({run for run, _ in policy.samples})
        ],
    )


def _named(found: Sequence[list[GradedPolicy]], names: Sequence[str], findings: Findings) -> list[GradedPolicy]:
    """The policies under names that differ: those given, else their own, told apart by their source."""
    every = [policy for policies in found for policy in policies]
    if len(names) == 1 and len(every) > 1:
        return [_merged(every, names[0])]
    if names and len(names) != len(every):
        listed = ", ".join(repr(policy.name) for policy in every)
        raise UserError(f"{len(names)} names for {len(every)} policies ({listed}): give one each, or one for all")
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if doubled:
        raise UserError(f"two policies are named {doubled[0]!r}: name them with `policy=`, once for each source")
    for policy, name in zip(every, names or [policy.name for policy in every], strict=True):
        policy.name = name
    count = Counter(policy.name for policy in every)
    for policy in every:
        if count[policy.name] > 1:
            findings.add("policies of one name, told apart by their source", f"{policy.name} of {policy.source}")
            policy.name = f"{policy.name} ({policy.source.parent.name}/{policy.source.name})"
    same = next((name for name, times in Counter(policy.name for policy in every).items() if times > 1), None)
    if same is not None:
        raise UserError(f"two policies are {same!r}: name them with `policy=`, once for each source")
    return every


def _merged(every: Sequence[GradedPolicy], name: str) -> GradedPolicy:
    """One policy whose runs are these."""
    runs = [(number, run) for number, policy in enumerate(every) for run in sorted({key[0] for key in policy.samples})]
    samples = {
        (seed, sample): results
        for seed, (number, run) in enumerate(runs)
        for (other, sample), results in every[number].samples.items()
        if other == run
    }
    formats = frozenset().union(*(policy.formats for policy in every))
    origins = {seed: every[number].source for seed, (number, _) in enumerate(runs)}
    return replace(every[0], name=name, samples=samples, formats=formats, run_sources=origins)


def _rows(
    policy: GradedPolicy, population: Sequence[str], grading: Grading, findings: Findings
) -> list[dict[str, Any]]:
    known = {*population}
    results = [result for each in policy.samples.values() for result in each.values()]
    grading = replace(grading, has_tests=any(map(says_more_than_resolved, results)))
    rows = []
    for (run, sample), found in sorted(policy.samples.items()):
        foreign = sorted(found.keys() - known)
        for instance in foreign:
            findings.add(f"{policy.name}: instances that are none of the given ones, left out", instance)
        if len(foreign) == len(found):
            raise UserError(
                f"{policy.name}: none of its {len(found)} instances, such as {foreign[0]!r}, is among the given "
                f"{len(known)}, such as {population[0]!r}: give the instances of these results"
            )
        for instance in population:
            result = found.get(instance)
            if result is None:
                findings.add(f"{policy.name}: instances without any result", instance)
                result = GradedResult(instance=instance, place=policy.source, depth=Depth.SUBMISSION)
            row = graded_row(replace(result, run=run, sample=sample), policy.name, grading, findings)
            _note(policy.name, result, row, findings)
            rows.append(row)
    return [*checked(rows, policy.name)]


def _note(policy: str, result: GradedResult, row: Mapping[str, Any], findings: Findings) -> None:
    """Add what is odd in one result."""
    instance, depth = result.instance, result.depth
    if row["cause"] and depth is not Depth.SUBMISSION:
        if row["clean_fix"] is None:
            effect = "no outcome"
        elif row["fix"] is None:
            effect = f"counted only as {'resolved' if row['clean_fix'] else 'unresolved'}"
        else:
            effect = "neither fixed nor broken"
        findings.add(f"{policy}: {effect}, as {row['cause']}", instance)
    elif depth is Depth.SUBMISSION and result.patch is not None:
        what = "an empty patch, without a result" if result.empty else "a patch, without a result"
        findings.add(f"{policy}: {what}", instance)
    if result.empty and row["fail_to_pass"] and depth >= Depth.LOG and (result.statuses or result.fail_to_pass):
        findings.add(f"{policy}: empty patches that were graded", instance)
    if row["clean_fix"] is not None and row["broke"] is None and row["fix"] is not None:
        findings.add(f"{policy}: breakage unmeasured, as no PASS_TO_PASS test counted", instance)
    claimed, own = result.resolved, None if row["fix"] is None else bool(row["fix"]) and not row["broke"]
    has_tests = result.statuses is not None or result.fail_to_pass is not None
    if has_tests and None not in (claimed, own) and claimed != own:
        findings.add(f"{policy}: resolved by one source and not by its tests, which decide, or the reverse", instance)


def _refuse_without_outcomes(found: Sequence[GradedPolicy], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    every = [row for each in rows.values() for row in each]
    if any(row[name] is not None for row in every for name in OUTCOMES):
        return
    results = [result for policy in found for each in policy.samples.values() for result in each.values()]
    if any(result.statuses is not None for result in results) and all(row["fail_to_pass"] is None for row in every):
        raise UserError(
            "run logs do not name their FAIL_TO_PASS and PASS_TO_PASS tests: give a file of their instances that lists "
            "them with `tasks=`"
        )
    reason = next((row["cause"] for row in every if row["cause"] not in ("", NO_RESULT)), "their values cannot be read")
    raise UserError(f"none of the {len(every)} attempts has an outcome ({reason}): give results that were graded")


def _set_aside(gold: Path, grading: Grading, format_name: str | None, findings: Findings) -> dict[str, frozenset[str]]:
    """Instance -> PASS_TO_PASS tests that the reference patch breaks."""
    rows: list[dict[str, Any]]
    if (gold / "manifest.json").is_file():
        several = [*Run.open(gold).manifest.policies]
        if len(several) != 1:
            raise UserError(f"{gold}: a run of {len(several)} policies: give a run of the reference patches alone")
        rows = [{**row} for _, row in load_rows(gold / "evaluations").iterrows()]
    else:
        policies = read_policies(gold, findings, format_name)
        if len(policies) != 1:
            listed = ", ".join(repr(policy.name) for policy in policies)
            raise UserError(
                f"{gold}: results of {len(policies)} policies ({listed}): give those of the reference patches"
            )
        population = sorted(grading.instances) or sorted(policies[0].instances)
        rows = _rows(replace(policies[0], name="reference"), population, grading, Findings())
    aside: dict[str, set[str]] = {}
    for row in rows:
        if row["fix"] == 0:
            findings.add("instances that the reference patch does not fix", row["task"])
        if row["broken_tests"]:
            findings.add("instances with tests set aside, as the reference patch breaks them", row["task"])
            aside.setdefault(row["task"], set()).update(row["broken_tests"])
    return {task: frozenset(tests) for task, tests in aside.items()}


def _counts(policy: str, rows: Sequence[Mapping[str, Any]]) -> Counts:
    def count(column: str, value: int | None = None) -> int:
        return sum(row[column] is not None and value in (None, row[column]) for row in rows)

    return Counts(
        policy=policy,
        attempts=len(rows),
        fixed=count("fix", 1),
        fix_known=count("fix"),
        broke=count("broke", 1),
        broke_known=count("broke"),
        fixed_but_broke=sum(row["fix"] == 1 and row["broke"] == 1 for row in rows),
        clean=count("clean_fix", 1),
        clean_known=count("clean_fix"),
    )


def write_graded(graded: GradedImport, folder: Path) -> Run:
    """Write a run: whole, or not at all.

    Raises:
        UserError: the folder exists and is not empty.
    """
    paths = Counter(Run.evaluation_of(folder, policy) for policy in graded.rows)
    if "" in graded.rows or len(paths) < len(graded.rows):
        raise UserError(
            "names of policies must not be empty, nor equal but for special characters: name them otherwise"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists: choose a new folder for the run")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(graded, draft, folder.name)
        draft.chmod(0o755)
        draft.replace(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Run.open(folder)


def _write_episodes(graded: GradedImport, draft: Path) -> None:
    """Join the trajectories to the rows, which get their columns, and store them."""
    for row, episode in joined_episodes(graded.origins, graded.rows, graded.findings):
        policy = row["policy"]
        add_episodes(episodes_path(Run.evaluation_of(draft, policy)), [(row, episode)])
        graded.episodes[policy] = graded.episodes.get(policy, 0) + 1


def _write(graded: GradedImport, draft: Path, name: str) -> None:
    _write_episodes(graded, draft)
    lines = graded.findings.lines()
    hidden = len(lines) - MOST_NOTES
    notes = ["Imported: graded by another program; nothing was executed.", *lines[:MOST_NOTES]]
    notes += [f"{hidden} more findings in import.json"] if hidden > 0 else []
    several = len(graded.rows) > 1
    manifest = Manifest(
        name=name,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        configuration={
            IMPORTED: {
                "regrade": version("regrade"),
                "formats": list(graded.formats),
                "sources": graded.sources,
                "unreported": graded.grading.unreported,
                "set_aside": sum(map(len, graded.grading.set_aside.values())),
            }
        },
        policies={
            policy: PolicyEntry(
                role="baseline" if several and not number else "candidate",
                spec={"model": graded.models.get(policy, ""), "sources": graded.sources.get(policy, [])},
            )
            for number, policy in enumerate(graded.rows)
        },
        notes=tuple(notes),
    )
    journal.write_atomically(draft / "manifest.json", json.dumps(manifest.to_json(), indent=2) + "\n")
    journal.write_atomically(draft / "import.json", json.dumps(graded.findings.to_json(), indent=1) + "\n")
    run = Run.open(draft)
    for policy, rows in graded.rows.items():
        journal.append(run.evaluation(policy), rows)
    if graded.instances:
        journal.write_atomically(draft / "tasks.jsonl", "".join(map(_description, graded.instances.values())))


def _description(instance: Instance) -> str:
    described = {
        "id": instance.id,
        "repository": instance.repository,
        "instruction": instance.statement,
        "fail_to_pass": list(instance.fail_to_pass or ()),
        "reference": instance.patch,
    }
    return json.dumps(described) + "\n"
