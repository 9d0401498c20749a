"""`regrade cache`: what is kept between runs, and how to make room."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from regrade.cli.console import print_json, stdout

app = typer.Typer(help="Show what is kept between runs, and make room.", invoke_without_command=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
DATABASE = "evidence.sqlite"
CONTENTS = {
    "evidence": "what was found out about patches",
    "baselines": "which tests of local repositories can be relied on",
    "environments": "interpreters with the packages that tests need",
    "bytecode": "compiled modules",
    "sources": "the packages that the ready-made tasks come from",
    "models": "the embedded model",
}
"""What is kept in the cache folder -> what it is. All of it is made again where it is missing."""


@app.callback()
def cache(context: typer.Context, json: Json = False) -> None:
    """Show what is kept between runs, and make room."""
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
        evidence = [
            {"kind": held.kind, "records": held.records, "megabytes": round(held.megabytes, 3)} for held in usage
        ]
        print_json({"folder": str(folder), "megabytes": sizes, "evidence": evidence})
        return
    console = stdout()
    console.print(f"{folder}   {sum(sizes.values()):,.1f} MB", soft_wrap=True)
    table = Table("kept", "MB", "what it is", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, size in sizes.items():
        table.add_row(name, f"{size:,.1f}", CONTENTS[name])
    console.print(table)
    if usage:
        kinds = Table("evidence", "records", "MB", "last used", box=None, pad_edge=False)
        for column in kinds.columns[1:3]:
            column.justify = "right"
        for held in usage:
            kinds.add_row(
                held.kind or "of earlier versions", f"{held.records:,}", f"{held.megabytes:,.1f}", _ago(held.last_used)
            )
        console.print()
        console.print(kinds)


@app.command()
def prune(
    to: Annotated[float, typer.Option(min=0.0, help="Gigabytes of evidence to keep: what was used last.")],
) -> None:
    """Drop the evidence that was not used for the longest time.

    That happens by itself above 4 GB, or above $REGRADE_EVIDENCE_GB.
    """
    from regrade.datasets.caches import default_cache
    from regrade.datasets.errors import UserError
    from regrade.evaluators.storage.evidence_store import EvidenceStore

    path = default_cache() / DATABASE
    if not path.exists():
        raise UserError(f"{path.parent} holds no evidence: there is nothing to drop")
    store = EvidenceStore(path)
    try:
        dropped = store.shrink(to)
        stdout().print(f"{dropped:,} records dropped, {len(store):,} kept ({_megabytes(path):,.1f} MB)")
    finally:
        store.close()


@app.command()
def clear(
    what: Annotated[list[str], typer.Argument(help=f"Any of: {', '.join(CONTENTS)}; or all.")],
) -> None:
    """Delete what is kept; it is made again when it is needed. Not while another `regrade` runs."""
    from regrade.datasets.caches import default_cache
    from regrade.datasets.errors import UserError

    folder = default_cache()
    unknown = sorted(set(what) - {*CONTENTS, "all"})
    if unknown:
        raise UserError(f"nothing is kept under the name {unknown[0]!r}: name any of {', '.join(CONTENTS)}, or all")
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
        return "not since then"
    hours = max(0.0, time.time() - moment) / 3600
    return "within the hour" if hours < 2 else f"{hours:.0f} hours ago" if hours < 48 else f"{hours / 24:.0f} days ago"
