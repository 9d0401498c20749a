"""Can two runs be compared? Checks of their manifests, before any row is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.evaluators.analysis.comparison import MARGIN
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.graded_runs import IMPORTED
from regrade.evaluators.storage.manifest import DECISIVE, Manifest, significant
from regrade.evaluators.storage.run import Run
from regrade.rewards.assurance import not_excluded


def check(
    baseline: Path, candidate: Path, *, margin: float | None = None, mixed_versions: bool = False
) -> tuple[float, list[str]]:
    """The margin of the comparison, and notes for its readers.

    Args:
        baseline, candidate: a run's folder, or a file or folder of rows.
        margin: None: the margin that either run declares, else `comparison.MARGIN`.

    Raises:
        UserError: the two were evaluated by different versions and `mixed_versions` is false, or they declare
            different margins.
    """
    runs = [_run(source) for source in (baseline, candidate)]
    first, second = (run.manifest if run else None for run in runs)
    is_one_run = runs[0] is not None and runs[1] is not None and runs[0].folder == runs[1].folder
    notes = list(_versions(first, None if is_one_run else second, mixed_versions))
    notes += _imported(first, None if is_one_run else second)
    notes += [f"{path} ends in an incomplete line, which is skipped" for path in _files(baseline, candidate)]
    levels = dict.fromkeys(manifest.assurance for manifest in (first, second) if manifest)
    notes += filter(None, map(not_excluded, levels))
    declared = {value for value in map(_margin, (first, second)) if value is not None}
    if margin is None:
        if len(declared) > 1:
            listed = " and ".join(f"{value:g}" for value in sorted(declared))
            raise UserError(f"the two runs declare different margins, {listed}: choose one with `margin=`")
        return (declared.pop() if declared else MARGIN), notes
    if declared and declared != {margin}:
        listed = ", ".join(f"{value:g}" for value in sorted(declared))
        notes.append(f"the margin {margin:g} differs from the one declared before the evaluation: {listed}")
    return margin, notes


def _run(source: Path) -> Run | None:
    """The run of a folder, or of a file of rows; None if there is none."""
    for folder in (source, *source.parents[:2]):
        if (folder / "manifest.json").is_file():
            return Run(folder)
    return None


def _margin(manifest: Manifest | None) -> float | None:
    margin = _configured(manifest, "comparison").get("margin")
    return float(margin) if isinstance(margin, int | float) else None


def _configured(manifest: Manifest | None, key: str) -> Mapping[str, Any]:
    """An entry of a run's configuration; empty if it is missing or not an object."""
    configuration = manifest.configuration if manifest else {}
    entry = configuration.get(key) if isinstance(configuration, Mapping) else None
    return entry if isinstance(entry, Mapping) else {}


def _versions(baseline: Manifest | None, candidate: Manifest | None, mixed: bool) -> Iterator[str]:
    for role, manifest in (("baseline", baseline), ("candidate", candidate)):
        later = _configured(manifest, "continued_with")
        if manifest and later:
            subject = "run" if candidate is None else role
            yield _mixed(
                f"the {subject} was started with {_listed(manifest.versions, later)}, continued with "
                f"{_listed(later, later)}",
                mixed,
            )
    if baseline is None or candidate is None:
        return
    pair = baseline.versions, candidate.versions
    differing = [name for name in DECISIVE if significant(pair[0], name) != significant(pair[1], name)]
    if differing:
        sides = [_listed(versions, differing) for versions in pair]
        yield _mixed(f"the baseline was evaluated with {sides[0]}, the candidate with {sides[1]}", mixed)
    if baseline.assurance != candidate.assurance:
        levels = f"{baseline.assurance or 'unknown'} and {candidate.assurance or 'unknown'}"
        yield f"the two runs have different levels of assurance: {levels}"


def _imported(baseline: Manifest | None, candidate: Manifest | None) -> Iterator[str]:
    """What readers of imported results must know (see `regrade.evaluators.storage.graded_runs`)."""
    entries = [_configured(manifest, IMPORTED) for manifest in (baseline, candidate) if manifest]
    if not any(entries):
        return
    yield "imported results, graded by another program: import.json of the run lists what is odd in them"
    if len(entries) > 1 and not all(entries):
        yield "one of the two was imported and the other was executed here: their graders differ"
    kinds = {str(entry.get("unreported")) for entry in entries if entry}
    if len(kinds) > 1:
        yield "attempts without an outcome count as missing in one of the two, as unresolved in the other"


def _mixed(text: str, allowed: bool) -> str:
    if not allowed:
        raise UserError(f"{text}: evaluate both with one version, or add `mixed_versions=True` to compare anyway")
    return text


def _listed(versions: Mapping[str, str], names: Iterable[str]) -> str:
    return ", ".join(f"{name} {versions.get(name, 'unknown')}" for name in names)


def _files(*sources: Path) -> Iterator[Path]:
    for source in dict.fromkeys(sources):
        folder = source / "evaluations" if (source / "manifest.json").is_file() else source
        files = [folder] if folder.is_file() else sorted(folder.glob("*.jsonl"))
        yield from (path for path in files if journal.is_torn(path))
