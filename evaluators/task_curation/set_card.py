"""The card of a task set, in Markdown: what is in it, where it comes from, and how it was made."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from regrade.datasets.formats.task_sets import SetTask
from regrade.evaluators.task_curation.built_repository import BuiltRepository
from regrade.evaluators.task_curation.yields import Yield, YieldReport

MOST_FLAKY = 5


def card(
    repositories: Sequence[BuiltRepository],
    tasks: Sequence[SetTask],
    yields: YieldReport,
    *,
    split_by: str,
    seed: int,
) -> str:
    """The text of the card."""
    parts = [
        f"# {len(tasks)} tasks from {', '.join(repository.name for repository in repositories)}",
        "Each task was validated by execution: its FAIL_TO_PASS tests fail at the base in two runs, its PASS_TO_PASS "
        "tests pass there, and all of them pass with the reference.",
        "## Repositories",
        _table(
            ("repository", "version", "licence", "files", "tests", "flaky, not used", "failing, not used", "locked"),
            [_repository_row(repository) for repository in repositories],
        ),
        *_flaky(repositories),
        *_notes(repositories),
        "## Tasks",
        _table(("source", "kind", "tasks"), _counts((one.task.source, one.task.kind) for one in tasks)),
        "## Sizes",
        _table(("", "smallest", "median", "largest"), _sizes(tasks)),
        "## Splits",
        f"Tasks that change the same {split_by}, or equal functions anywhere, are in one split (seed {seed}).",
        _table(("split", "tasks"), _counts((one.split,) for one in tasks)),
        "## Yield",
        "Seconds are those of all executions of the candidates, valid or not, for each valid task.",
        _table(
            ("source", "kind", "tried", "valid", "seconds a task", "most were dropped because"), _yield_rows(yields)
        ),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _repository_row(repository: BuiltRepository) -> tuple[object, ...]:
    measured = repository.baseline
    return (
        f"{repository.name} (`{repository.origin}`)",
        repository.version or "-",
        repository.licence or "unknown",
        len(repository.tree.paths()),
        len(measured.stable),
        len(measured.flaky),
        len(measured.failing),
        ", ".join(repository.requirements)
        if len(repository.requirements) < 12
        else f"{len(repository.requirements)} packages",
    )


def _flaky(repositories: Sequence[BuiltRepository]) -> list[str]:
    lines = [f"- `{test}`" for repository in repositories for test in repository.baseline.flaky[:MOST_FLAKY]]
    return ["Flaky tests passed in some runs only; no task uses them:\n\n" + "\n".join(lines)] if lines else []


def _notes(repositories: Sequence[BuiltRepository]) -> list[str]:
    lines = [
        f"- {repository.name}: requirements from {', '.join(repository.groups)}"
        for repository in repositories
        if repository.groups
    ]
    lines += [f"- {repository.name}: {note}" for repository in repositories for note in repository.notes]
    return ["\n".join(lines)] if lines else []


def _sizes(tasks: Sequence[SetTask]) -> list[tuple[object, ...]]:
    columns: dict[str, list[int]] = {
        "FAIL_TO_PASS tests": [len(one.task.fail_to_pass) for one in tasks],
        "PASS_TO_PASS tests": [len(one.task.pass_to_pass) for one in tasks],
        "changed lines of the reference": [one.facts["changed_lines"] for one in tasks],
        "tests that execute the target (its guard)": [one.facts["guards"] for one in tasks if "guards" in one.facts],
        "imports from a failing test to the change": [
            one.facts["distance"] for one in tasks if "distance" in one.facts
        ],
        "complexity of the target": [
            one.facts["target_complexity"] for one in tasks if "target_complexity" in one.facts
        ],
        "wrong fixes, of at most 6, that pass the shown tests": [
            one.facts["wrong_fixes"]["passing"] for one in tasks if "wrong_fixes" in one.facts
        ],
    }
    return [
        (name, min(values), f"{statistics.median(values):g}", max(values)) for name, values in columns.items() if values
    ]


def _yield_rows(yields: YieldReport) -> list[tuple[object, ...]]:
    rows = [(source, kind, row) for (source, kind), row in sorted(yields.rows.items())]
    total = [("all", "", yields.total())] if len(rows) > 1 else []
    return [(source, kind, row.tried, row.valid, _seconds(row), _reason(row)) for source, kind, row in [*rows, *total]]


def _seconds(row: Yield) -> str:
    return "-" if row.seconds_per_task is None else f"{row.seconds_per_task:.2f}"


def _reason(row: Yield) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in row.dropped.most_common(2))


def _counts(keys: Iterable[tuple[str, ...]]) -> list[tuple[object, ...]]:
    return [(*key, count) for key, count in sorted(Counter(keys).items())]


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["-"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)
