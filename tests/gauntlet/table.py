"""The gauntlet's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gauntlet.naive import SCORERS
from gauntlet.play import Row, Verdict

YES, NO, SIGNED, UNSURE = "REWARDED", "·", "signs", "level"


def totals(rows: Sequence[Row], levels: Sequence[str]) -> dict[str, Any]:
    """Exploits rewarded by each scorer and level, and honest twins punished."""
    catalogue = [row for row in rows if not row.attack.row.startswith("+")]
    plain = {level: [row.levels.get(level, {}).get("process") for row in rows] for level in levels}
    return {
        "cheats": len(rows),
        "of_the_catalogue": len(catalogue),
        "rewarded": _rewarded(rows, levels),
        "rewarded_of_the_catalogue": _rewarded(catalogue, levels),
        "rewarded_in_a_plain_process": {level: sum(v.rewarded for v in found if v) for level, found in plain.items()},
        "punished": sum(verdict.allowed for row in rows for *_, verdict in row.unrewarded_twins),
        "beyond_their_task": [
            f"{row.attack.row} `{row.attack.name}` at {level}"
            for row in rows
            for level, _, verdict in row.unrewarded_twins
            if not verdict.allowed
        ],
        "twins": sum(len(by) for row in rows for by in row.twins.values()),
    }


def _rewarded(rows: Sequence[Row], levels: Sequence[str]) -> dict[str, int]:
    """Count by scorer; by level; and by level without the scan of the diff."""
    counts = {scorer: sum(row.naive.get(scorer, False) for row in rows) for scorer in SCORERS}
    for level in levels:
        unread = [any(v.resolved and v.assured for v in _isolated(row, level)) for row in rows]
        counts[f"{level}, diff unread"] = sum(unread)
        counts[level] = sum(row.rewarded(level) for row in rows)
    return counts


def printed(
    rows: Sequence[Row],
    levels: Sequence[str],
    sandboxes: Sequence[str],
    missing: Mapping[str, str],
    not_played: Mapping[int, str],
) -> None:
    """Print the table, the runs that were left out, and the totals."""
    console = Console(width=None if Console().is_terminal else 200, highlight=False, markup=False)
    console.print(_table(rows, levels))
    console.print(
        f"{YES}: like an honest fix. {SIGNED}: the tests alone would have rewarded it, and signs in the diff close the gate "
        f"`untampered`. {UNSURE}: the level is not reached. {NO}: not rewarded.\nSandboxes: {', '.join(sandboxes)}. "
        "An exploit that only a plain process rewards is marked."
    )
    for name, why in missing.items():
        console.print(f"not played in {name}: {why}")
    for row in rows:
        for name, why in row.not_played.items():
            console.print(f"not played in {name}: {row.attack.id}: {why}")
    for number, why in not_played.items():
        console.print(f"not played: row {number}: {why}")
    counts = totals(rows, levels)
    for key, words in (
        ("rewarded", f"of {counts['cheats']} exploits"),
        ("rewarded_of_the_catalogue", f"of {counts['of_the_catalogue']} in the catalogue"),
    ):
        console.print(f"rewarded, {words}: " + ", ".join(f"{name} {count}" for name, count in counts[key].items()))
    console.print(f"honest twins punished: {counts['punished']} of {counts['twins']}")
    for row in rows:
        for level, name, verdict in row.unrewarded_twins:
            what = "PUNISHED" if verdict.allowed else "not rewarded, as its task does not allow the level"
            console.print(
                f"{what}: the twin of {row.attack.id}, {level}, {name}: {verdict.caught_by}: {verdict.reason}"
            )


def _table(rows: Sequence[Row], levels: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("row", justify="right")
    table.add_column("exploit", no_wrap=True)
    for name in (*SCORERS, *levels):
        table.add_column(name, justify="center")
    table.add_column("caught by")
    table.add_column("reason given", overflow="fold")
    for row in rows:
        naive = [_word(row.naive[scorer]) if scorer in row.naive else Text("") for scorer in SCORERS]
        last = _shown(row, levels[-1])
        table.add_row(
            row.attack.row, row.attack.name, *naive, *(_level(row, level) for level in levels),
            Text((last.caught_by if last else "") or "nobody"), Text(_reason(last)),
        )  # fmt: skip
    return table


def _reason(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    reason = " ".join(verdict.reason.split())[:70]
    conclusive = [sign for sign in verdict.signs if not sign.startswith("(")]
    return conclusive[0] if conclusive else "; ".join(filter(None, (reason, *verdict.signs[:1])))


def _shown(row: Row, level: str) -> Verdict | None:
    """The verdict of the sandbox in which the exploit got furthest."""
    return max(
        _isolated(row, level),
        key=lambda v: (v.rewarded, v.resolved),
        default=next(iter(row.levels.get(level, {}).values()), None),
    )


def _isolated(row: Row, level: str) -> list[Verdict]:
    return [verdict for kind, verdict in row.levels.get(level, {}).items() if kind != "process"]


def _level(row: Row, level: str) -> Text:
    isolated = _isolated(row, level)
    if any(verdict.rewarded for verdict in isolated):
        return _word(True)
    if resolved := [verdict for verdict in isolated if verdict.resolved]:
        return Text(SIGNED if all(verdict.assured for verdict in resolved) else UNSURE, style="yellow")
    plain = row.levels.get(level, {}).get("process")
    if plain is not None and plain.rewarded:
        return Text(f"{YES} in process" if isolated else YES, style="bold red")
    if plain is not None and plain.resolved:
        return Text(f"{SIGNED} in process" if isolated else SIGNED, style="yellow")
    return _word(False)


def _word(rewarded: bool) -> Text:
    return Text(YES, style="bold red") if rewarded else Text(NO)
