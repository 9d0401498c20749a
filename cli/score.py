"""`regrade score`: what patches are worth, on any local repository or on a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrade.cli.console import print_json, stdout
from regrade.cli.options import (
    AsJson,
    AssuranceOption,
    FailToPass,
    Patches,
    Reachable,
    Repo,
    RewardModelFolder,
    RewardName,
    SandboxName,
    TaskFile,
    TaskId,
    TimeLimit,
    Workers,
)
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.cli.jobs import PatchResult
    from regrade.rewards.breakdown import Breakdown
REFUSED = "refused"
"""The status, in JSON, of one patch of several that can't be read, is no diff or does not apply."""


def score(
    patches: Patches,
    repo: Repo = Path(),
    fail_to_pass: FailToPass = None,
    reward: RewardName = "default",
    sandbox: SandboxName = "auto",
    tasks: TaskFile = None,
    task: TaskId = None,
    workers: Workers = None,
    reachable: Reachable = False,
    reward_model: RewardModelFolder = None,
    time_limit: TimeLimit = 600.0,
    assured: AssuranceOption = None,
    json: AsJson = False,
) -> None:
    """Score patches for any local repository.

    Each is applied to a fresh tree and its tests run in a sandbox; nothing in the repository is changed. Prints what it
    is worth and why; of several, a table at the end. What was found out is kept, so the same patch is not run twice.

    One of several that does not apply is told of, the others are scored, and the command exits 2.
    """
    from regrade.cli.jobs import ScoreRequest, score_files

    wanted = tuple(fail_to_pass or ())
    request = ScoreRequest(
        repo=repo,
        fail_to_pass=wanted,
        tasks=tasks,
        task=task,
        reward=reward,
        sandbox=sandbox,
        workers=workers,
        reachable=reachable,
        reward_model=reward_model,
        time_limit=time_limit,
        assured=assured,
    )
    results = score_files(patches, request)
    for result in results:
        digest = result.patch.digest if result.patch is not None else None
        if result.breakdown is not None:
            show(result.breakdown, json, result.notes, patch=result.source, digest=digest)
        elif json:
            print_json({"patch": result.source, "digest": digest, **refused(result)})
    if len(results) > 1 and not json and any(result.breakdown is not None for result in results):
        _show_table(results)
    complaints = [complaint for complaint in (_refusals(results), _losses(results)) if complaint]
    if complaints:
        raise UserError("; ".join(complaints))


def show(breakdown: Breakdown, json: bool, notes: Sequence[str], **names: str | None) -> None:
    """Print a breakdown as a tree under the first of `names`, or as a line of JSON that holds them all."""
    from regrade.reports.explanation import print_breakdown

    if json:
        print_json({**names, **breakdown.to_json(), "notes": list(notes)})
    else:
        print_breakdown(breakdown, title=next(iter(names.values())) or "", console=stdout())


def _show_table(results: Sequence[PatchResult]) -> None:
    from regrade.reports.patch_table import PatchRow, print_patches

    console = stdout()
    console.print()
    print_patches([PatchRow(each.source, each.breakdown, each.run, each.refusal) for each in results], console)


def refused(result: PatchResult) -> dict[str, Any]:
    """What JSON says of a patch that was refused, under the keys of those that were scored."""
    return {
        "value": None, "status": REFUSED, "cause": result.refusal, "assurance": None, "parts": [],
        "notes": list(result.notes),
    }  # fmt: skip


def _refusals(results: Sequence[PatchResult]) -> str:
    """Which patches were refused; empty if none was."""
    names = [repr(result.source) for result in results if result.refusal]
    if not names:
        return ""
    return (
        f"{len(names)} of {len(results)} patches refused, for the reasons above: {', '.join(names)}; mend them and "
        "run the same command again, what was scored is kept"
    )


def _losses(results: Sequence[PatchResult]) -> str:
    """How many patches could not be scored for a reason of this machine; empty if none."""
    lost = [each.breakdown for each in results if each.breakdown is not None and each.breakdown.is_lost]
    if not lost:
        return ""
    return (
        f"{len(lost)} of {len(results)} patches could not be scored, for no fault of theirs: {lost[0].cause}; mend "
        "that and run the same command again"
    )
