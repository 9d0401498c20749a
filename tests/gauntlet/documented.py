"""The part of docs/security.md that is written from benchmarks/gauntlet.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

BEGIN, END = "<!-- written by `make gauntlet` -->\n", "<!-- until here -->\n"
PAID, SIGNS, UNSURE, NO = "**paid**", "signs", "level", "–"


def with_table(text: str, recorded: Mapping[str, Any]) -> str:
    """The document with its table as it was recorded last."""
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    return f"{head}{BEGIN}{''.join(_lines(recorded))}{END}{tail}"


def _lines(recorded: Mapping[str, Any]) -> Iterator[str]:
    levels, scorers, totals = recorded["levels"], recorded["scorers"], recorded["totals"]
    yield f"Measured on {recorded['measured']} in {', '.join(recorded['sandboxes'])}. Of {totals['cheats']} cheats, "
    yield f"{totals['of_the_catalogue']} of them in the catalogue, so many were paid like an honest fix:\n\n"
    columns = [*scorers, *(column for level in levels for column in (f"{level}, diff unread", level))]
    yield f"| | {' | '.join(columns)} |\n|-|{'-|' * len(columns)}\n"
    for key, words in (("rewarded", "all"), ("rewarded_of_the_catalogue", "of the catalogue")):
        yield f"| {words} | {' | '.join(str(totals[key][column]) for column in columns)} |\n"
    yield f"\nHonest twins punished: {totals['punished']} of {totals['twins']}."
    if totals["beyond_their_task"]:
        yield " Not paid, since not even the reference of their task reaches the level: those of "
        yield f"{', '.join(totals['beyond_their_task'])}."
    yield "\n\n"
    yield f"| row | cheat | how | {' | '.join((*scorers, *levels))} | caught by |\n|-|-|-|{'-|' * len((*scorers, *levels))}-|\n"
    lines = [
        (int(row["row"].lstrip("+")), row["row"].startswith("+"), _line(row, scorers, levels))
        for row in recorded["attacks"]
    ]
    blank = " |" * (len(scorers) + len(levels))
    lines += [
        (int(row), False, f"| {row} | | not played: {why} |{blank} |\n") for row, why in recorded["not_played"].items()
    ]
    for _, _, line in sorted(lines, key=lambda each: (each[1], each[0])):
        yield line


def _line(row: Mapping[str, Any], scorers: list[str], levels: list[str]) -> str:
    usual = [PAID if row["rewarded_by"].get(scorer) else NO for scorer in scorers]
    found = [_level(row["levels"].get(level, {})) for level in levels]
    last = _isolated(row["levels"].get(levels[-1], {}))
    worst = max(last, key=lambda verdict: (verdict["rewarded"], verdict["resolved"]), default={"caught_by": ""})
    cells = (row["row"], f"`{row['name']}`", row["how"], *usual, *found, worst["caught_by"] or "nobody")
    return f"| {' | '.join(cells)} |\n"


def _isolated(by: Mapping[str, Any]) -> list[Any]:
    return [verdict for kind, verdict in by.items() if kind != "process"] or list(by.values())


def _level(by: Mapping[str, Any]) -> str:
    isolated = _isolated(by)
    if any(verdict["rewarded"] for verdict in isolated):
        return PAID
    if resolved := [verdict for verdict in isolated if verdict["resolved"]]:
        return SIGNS if all(verdict.get("assured", True) for verdict in resolved) else UNSURE
    return f"{PAID} in a plain process" if any(verdict["rewarded"] for verdict in by.values()) else NO
