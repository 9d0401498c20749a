"""`regrade cache`: show, prune or clear the cache."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from regrade.cli.console import print_json, stdout
from regrade.cli.options import JsonObject

app = typer.Typer(invoke_without_command=True)
LARGEST_GB = 1e6
DATABASE = "evidence.sqlite"
CONTENTS = {
    "evidence": "results of patches: tests, lint, complexity, ...",
    "baselines": "test results of unchanged local repositories",
    "environments": "interpreters with the requirements of tasks",
    "bytecode": "compiled Python modules",
    "sources": "source packages of the ready-made tasks",
    "models": "the embedded model",
    "repositories": "files of repositories that tasks are built from",
    "clones": "their histories",
    "locks": "locked versions of their requirements",
}
"""Part of the cache -> description. A missing part is created again."""


@app.callback()
def cache(context: typer.Context, json: JsonObject = False) -> None:
    """Show the cache (without a command), or prune or clear it."""
    if context.invoked_subcommand is None:
        _show(json)


def _show(json: bool) -> None:
    from rich.table import Table

    from regrade.datasets.caches import default_cache
    from regrade.evaluators.storage.evidence_store import EvidenceStore

    folder = default_cache()
    sizes = {name: round(sum(map(_megabytes, _paths(folder, {name}))), 3) for name in CONTENTS}
    store = EvidenceStore(folder / DATABASE) if (folder / DATABASE).exists() else None
    usage = store.usage() if store is not None else []
    if store is not None:
        store.close()
    if json:
        evidence = [{"kind": row.kind, "records": row.records, "megabytes": round(row.megabytes, 3)} for row in usage]
        print_json({"folder": str(folder), "megabytes": sizes, "evidence": evidence})
        return
    console = stdout()
    console.print(f"{folder}   {sum(sizes.values()):,.1f} MB", soft_wrap=True)
    table = Table("part", "MB", "content", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, size in sizes.items():
        table.add_row(name, f"{size:,.1f}", CONTENTS[name])
    console.print(table)
    if usage:
        kinds = Table("evidence", "records", "MB", "last used", box=None, pad_edge=False)
        for column in kinds.columns[1:3]:
            column.justify = "right"
        for row in usage:
            kinds.add_row(
                row.kind or "of earlier versions", f"{row.records:,}", f"{row.megabytes:,.1f}", _ago(row.last_used)
            )
        console.print()
        console.print(kinds)


@app.command()
def prune(
    to: Annotated[float, typer.Option(min=0.0, max=LARGEST_GB, help="Target size of the evidence, in gigabytes.")],
) -> None:
    """Evict the least recently used evidence.

    This happens automatically above 4 GB, or above $REGRADE_EVIDENCE_GB.
    """
    from regrade.datasets.caches import default_cache
    from regrade.datasets.errors import UserError
    from regrade.evaluators.storage.evidence_store import EvidenceStore

    path = default_cache() / DATABASE
    if not path.exists():
        raise UserError(f"{path.parent} has no evidence: there is nothing to evict")
    store = EvidenceStore(path)
    try:
        evicted = store.shrink(to)
        stdout().print(f"{evicted:,} records evicted, {len(store):,} left ({_megabytes(path):,.1f} MB)")
    finally:
        store.close()


@app.command()
def clear(
    what: Annotated[list[str], typer.Argument(metavar="PART", help=f"One or more of {', '.join(CONTENTS)}; or all.")],
) -> None:
    """Delete parts of the cache; do not use it while another `regrade` runs."""
    from regrade.datasets.caches import default_cache
    from regrade.datasets.errors import UserError

    folder = default_cache()
    unknown = sorted(set(what) - {*CONTENTS, "all"})
    if unknown:
        raise UserError(f"the cache has no part {unknown[0]!r}: give one or more of {', '.join(CONTENTS)}, or all")
    freed = 0.0
    for path in _paths(folder, set(CONTENTS) if "all" in what else set(what)):
        freed += _megabytes(path)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    stdout().print(f"{freed:,.1f} MB freed")


def _paths(folder: Path, names: set[str]) -> Iterator[Path]:
    for name in sorted(names):
        ends = ("", "-wal", "-shm") if name == "evidence" else ("",)
        paths = [folder / f"{DATABASE if name == 'evidence' else name}{end}" for end in ends]
        yield from (path for path in paths if path.exists())


def _megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink()) / 1e6


def _ago(moment: float) -> str:
    if not moment:
        return "unknown"
    hours = max(0.0, time.time() - moment) / 3600
    return "< 2 hours ago" if hours < 2 else f"{hours:.0f} hours ago" if hours < 48 else f"{hours / 24:.0f} days ago"
