"""`regrade score`: score patches for a local repository or for a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regrade.cli import options
from regrade.cli.console import print_json, stdout
from regrade.cli.jobs import score_files
from regrade.cli.scoring_options import ScoringOptions
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.cli.jobs import PatchResult
    from regrade.rewards.breakdown import Breakdown
    from regrade.rewards.evidence import TestRun
REFUSED = "refused"
"""The JSON status of one patch of several that cannot be read, is not a diff or does not apply."""


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(ScoringOptions):
    """The arguments and options of the command."""

    patches: options.Patches
    workers: options.Workers = None
    reachable: options.Reachable = False
    fresh: options.Fresh = False
    json: options.AsJson = False


@options.takes(ScoreOptions)
def score(given: ScoreOptions) -> None:
    """Score patches for any local repository.

    Applies each patch to a copy of the repository and runs the tests in a sandbox; the repository itself does not
    change. Prints the score of each patch with reasons, and a table for several patches. Results are stored, so a patch
    runs only once.

    If one of several patches does not apply, it is reported, the others are scored, and the command exits with 2.
    """
    json = given.json
    request = given.request(workers=given.workers, reachable=given.reachable, fresh=given.fresh)
    results = score_files(given.patches, request)
    for result in results:
        digest = result.patch.digest if result.patch is not None else None
        if result.breakdown is not None:
            more = {**unnamed_json(result.run), **assurance_json(result)}
            show(result.breakdown, json, result.notes, more, patch=result.source, digest=digest)
        elif json:
            print_json({"patch": result.source, "digest": digest, **refusal_json(result)})
    if len(results) > 1 and not json and any(result.breakdown is not None for result in results):
        _show_table(results)
    failures = [failure for failure in (refusals(results), _losses(results)) if failure]
    if failures:
        raise UserError("; ".join(failures))


def show(
    breakdown: Breakdown, json: bool, notes: Sequence[str], more: Mapping[str, Any] | None = None, **names: str | None
) -> None:
    """Print a breakdown as a tree with the first of `names` as its title, or as a line of JSON with all of them.

    Args:
        more: further keys of the JSON.
    """
    from regrade.reports.explanation import print_breakdown

    if json:
        excluded = {"not_excluded": breakdown.not_excluded}
        print_json({**names, **breakdown.to_json(), **excluded, "notes": list(notes), **(more or {})})
    else:
        cost = _cost((more or {}).get("verification_seconds"), (more or {}).get("tests_seconds"))
        print_breakdown(breakdown, title=next(iter(names.values())) or "", console=stdout(), cost=cost)


def assurance_json(result: PatchResult) -> dict[str, Any]:
    """The cost of the assurance of a patch beside that of its tests, in seconds; null where nothing ran."""
    return {
        "verification_seconds": None if result.verification is None else result.verification.seconds,
        "tests_seconds": None if result.run is None else result.run.seconds,
    }


def _cost(verification: float | None, tests: float | None) -> str:
    """The cost of the assurance, in words."""
    return f"+{verification:.2f} s, tests {tests:.2f} s" if verification and tests is not None else ""


def _show_table(results: Sequence[PatchResult]) -> None:
    from regrade.reports.patch_table import PatchRow, print_patches

    console = stdout()
    console.print()
    print_patches(
        [PatchRow(result.source, result.breakdown, result.run, result.refusal, result.integrity) for result in results],
        console,
    )


def unnamed_json(run: TestRun | None) -> dict[str, Any]:
    """The tests that fail at the base and that no FAIL_TO_PASS names: fixed by the patch, or not; empty if none."""
    if run is None or not run.unnamed:
        return {}
    fixed = set(run.also_fixed)
    return {"unnamed": {"fixed": list(run.also_fixed), "failing": [t for t in run.unnamed if t not in fixed]}}


def refusal_json(result: PatchResult) -> dict[str, Any]:
    """The JSON of a refused patch, with the keys of a scored one."""
    return {
        "value": None, "status": REFUSED, "cause": result.refusal, "assurance": None, "not_excluded": None, "parts": [],
        "notes": list(result.notes), **assurance_json(result),
    }  # fmt: skip


def refusals(results: Sequence[PatchResult]) -> str:
    """The message about refused patches; empty if there are none."""
    names = [repr(result.source) for result in results if result.refusal]
    if not names:
        return ""
    return (
        f"{len(names)} of {len(results)} patches refused, for the reasons above: {', '.join(names)}; fix them and "
        "run the same command again, other scores are stored"
    )


def _losses(results: Sequence[PatchResult]) -> str:
    """The message about patches that this machine could not score; empty if there are none."""
    breakdowns = [result.breakdown for result in results if result.breakdown is not None]
    lost = [breakdown for breakdown in breakdowns if breakdown.is_lost]
    if not lost:
        return ""
    return (
        f"{len(lost)} of {len(results)} patches could not be scored, for a reason outside the patch: {lost[0].cause}; "
        "fix it and run the same command again (`regrade -v score ...` logs every try)"
    )
