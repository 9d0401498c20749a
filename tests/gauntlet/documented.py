"""Generates the table of docs/security.md from benchmarks/gauntlet.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

BEGIN, END = "<!-- written by `make gauntlet` -->\n", "<!-- until here -->\n"
REWARDED, SIGNS, UNSURE, NO = "**rewarded**", "signs", "level", "–"


def with_table(text: str, recorded: Mapping[str, Any]) -> str:
    """The document with the recorded table."""
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    return f"{head}{BEGIN}{''.join(_lines(recorded))}{END}{tail}"


def _lines(recorded: Mapping[str, Any]) -> Iterator[str]:
    levels, scorers, totals = recorded["levels"], recorded["scorers"], recorded["totals"]
    yield f"Measured on {recorded['measured']} in {', '.join(recorded['sandboxes'])}. Exploits rewarded like an honest "
    yield f"fix, of {totals['cheats']} ({totals['of_the_catalogue']} of them in the catalogue):\n\n"
    columns = [*scorers, *(column for level in levels for column in (f"{level}, diff unread", level))]
    yield f"| | {' | '.join(columns)} |\n|-|{'-|' * len(columns)}\n"
    for key, words in (("rewarded", "all"), ("rewarded_of_the_catalogue", "of the catalogue")):
        yield f"| {words} | {' | '.join(str(totals[key][column]) for column in columns)} |\n"
    yield f"\nHonest twins punished: {totals['punished']} of {totals['twins']}."
    if totals["beyond_their_task"]:
        yield " Honest twins without a reward, because the reference of their task does not reach the level either: "
        yield f"{', '.join(totals['beyond_their_task'])}."
    yield "\n\n"
    yield f"| row | exploit | how | {' | '.join((*scorers, *levels))} | caught by |\n|-|-|-|{'-|' * len((*scorers, *levels))}-|\n"
    lines = [
        (int(row["row"].lstrip("+")), row["row"].startswith("+"), _line(row, scorers, levels))
        for row in recorded["attacks"]
    ]
    blank = " |" * (len(scorers) + len(levels))
    lines += [
        (int(row), False, f"| {row} | | not played: {why} |{blank} |\n") for row, why in recorded["not_played"].items()
    ]
    for _, _, line in sorted(lines, key=lambda line: (line[1], line[0])):
        yield line


def _line(row: Mapping[str, Any], scorers: list[str], levels: list[str]) -> str:
    by_scorers = [REWARDED if row["rewarded_by"].get(scorer) else NO for scorer in scorers]
    by_levels = [_level(row["levels"].get(level, {})) for level in levels]
    last = _isolated(row["levels"].get(levels[-1], {}))
    worst = max(last, key=lambda verdict: (verdict["rewarded"], verdict["resolved"]), default={"caught_by": ""})
    cells = (row["row"], f"`{row['name']}`", row["how"], *by_scorers, *by_levels, worst["caught_by"] or "nobody")
    return f"| {' | '.join(cells)} |\n"


def _isolated(by: Mapping[str, Any]) -> list[Any]:
    return [verdict for kind, verdict in by.items() if kind != "process"] or list(by.values())


def _level(by: Mapping[str, Any]) -> str:
    isolated = _isolated(by)
    if any(verdict["rewarded"] for verdict in isolated):
        return REWARDED
    if resolved := [verdict for verdict in isolated if verdict["resolved"]]:
        return SIGNS if all(verdict.get("assured", True) for verdict in resolved) else UNSURE
    return f"{REWARDED} in a plain process" if any(verdict["rewarded"] for verdict in by.values()) else NO
