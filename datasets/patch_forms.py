"""One reading of a patch for every command and interface: what git prints, mails and models write, as one plain diff.

docs/patches.md lists the forms that are read, and the malformed ones that are repaired, each with a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePosixPath

from regrade.datasets.errors import PatchError
from regrade.datasets.plain_diffs import (
    BEYOND,
    NOWHERE,
    QUOTED,
    SIDES,
    DiffEntry,
    DiffHunk,
    PlainDiff,
    line_counts,
    unquoted,
)

CACHES = frozenset({"__pycache__", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache"})
"""Folders that Python's tools write; what they contain is left out of a patch."""
COMPILED = (".pyc", ".pyo")
MOST_SPACES = 50
"""Spaces in the middle of a `diff --git` line that may be between its names: its prefixes have similar lengths."""
CONVERTED = "the patch was converted to CR LF: the CR at the ends of its lines is ignored"
NO_HEADER = "expected a unified diff, such as git prints"
NO_DATA = "is a binary file without its data: the patch was made without --binary, use `git diff --binary`"

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)")
_EXTENDED = re.compile(
    r"(?:index |old mode |new mode |new file mode |deleted file mode |similarity index |dissimilarity index "
    r"|rename (?:from|to|old|new) |copy (?:from|to) )"
)
_MOVED = re.compile(r"(?:rename|copy) (from|old|to|new) ")
_NAMING = ("diff --git ", "--- ", "+++ ", "rename ", "copy ")
_BASE85 = re.compile(r"(?:(?:literal|delta) \d+|[A-Za-z]\S+)$")
_NO_DATA = re.compile(r"(?:Binary files .+ differ|Files .+ differ)$")
_BULLET = re.compile(r"- \S")
_BOUNDARY = re.compile(r"-{14}[\w.]+(?:--)?$")
"""Ends an attachment of `git format-patch --attach`."""
_COMBINED = re.compile(r"diff --(?:cc|combined) ")
_TIME = re.compile(r"[ \t]+(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(?::\d\d(?:\.\d+)?)?(?: ([+-]\d{4}))?\s*$")


def plain_diff(text: str, level: int | None = None) -> PlainDiff:
    """A patch as a plain diff.

    Args:
        level: parts of a name that are its prefix (0 or 1); None: as the names look.

    Raises:
        PatchError: a hunk is malformed beyond repair, or a binary file has no data; with file, hunk and line.
    """
    has_mark = text.startswith("\ufeff")
    text = text.removeprefix("\ufeff")
    reader = _Reader(text.split("\n"), ends_in_newline=text.endswith("\n"), level=level)
    entries, repairs, omissions = reader.entries(), reader.repairs, reader.omissions
    if not entries and text.strip():
        advice = "the diff of a merge cannot be applied: make it against one parent" if omissions else NO_HEADER
        raise PatchError(f"no file header (`--- a/FILE`, `+++ b/FILE`): {advice}")
    if has_mark:
        repairs.append("the patch begins with a byte order mark: it is ignored")
    left_out = [entry for entry in entries if all(map(is_cache, entry.names))]
    if left_out:
        names = list(dict.fromkeys(name for entry in left_out for name in entry.names))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        omissions.append(f"caches in the patch are left out: {', '.join(names[:3])}{more}")
    kept = [entry for entry in entries if not all(map(is_cache, entry.names))]
    for entry in kept:
        if entry.is_without_data:
            raise PatchError(f"{entry.names[-1]!r} {NO_DATA}")
    plain = [entry.without_cr() for entry in kept]
    if any(entry.is_converted for entry in kept):
        repairs.append(CONVERTED)
    return PlainDiff(tuple(plain), tuple(repairs), tuple(omissions), _text(plain), _text(kept))


def named_files(text: str) -> set[str]:
    """Every name that a header line of the patch may mean, with and without its first part."""
    names: set[str] = set()
    for line in {_without_cr(line) for line in text.split("\n") if line.startswith(_NAMING)}:
        if line.startswith("diff --git "):
            header = line.removeprefix("diff --git ")
            names.update(name for level in (0, 1) for name in _header_names(header, level)[:2] if name is not None)
        elif line.startswith(("--- ", "+++ ")):
            names.update((_name(line[4:]), _name(line[4:], has_time=True)))
        elif moved := _MOVED.match(line):
            names.add(unquoted(line[moved.end() :]))
    return {_without(name, level) for name in names for level in (0, 1)} - {"."}


def is_cache(path: str) -> bool:
    """Is it a file that Python's tools write by themselves, or compiled Python, which cannot be read?"""
    return bool(CACHES.intersection(path.split("/"))) or path.endswith(COMPILED)


def _text(entries: Iterable[DiffEntry]) -> str:
    return "".join(f"{line}\n" for entry in entries for line in entry.written())


class _Reader:
    """Reads the entries of a patch, line by line. Text around them is ignored, as by git."""

    def __init__(self, lines: list[str], *, ends_in_newline: bool, level: int | None) -> None:
        self._lines = lines[:-1] if ends_in_newline else lines
        self._is_cut = not ends_in_newline
        """Whoever stripped the last newline may have stripped blank lines before it."""
        self._level = level
        self._at = 0
        self.repairs: list[str] = []
        self.omissions: list[str] = []

    def entries(self) -> list[DiffEntry]:
        entries = []
        while self._at < len(self._lines):
            if self._line().startswith("diff --git "):
                entries.append(self._git_entry())
            elif self._is_plain_header(self._at):
                entry = DiffEntry(is_converted=self._lines[self._at].endswith("\r"))
                old, new = self._line()[4:], self._line(1)[4:]
                self._at += 2
                self._sides(entry, old, new)
                self._hunks(entry)
                entries.append(entry)
            elif _HUNK.match(self._line()):
                number = self._at + 1
                raise PatchError(f"line {number}: a hunk without a file header (`--- a/FILE`, `+++ b/FILE`) before it")
            else:
                if _COMBINED.match(self._line()):
                    self.omissions.append(
                        f"line {self._at + 1}: the diff of a merge is ignored, as by git: make it against one parent"
                    )
                self._at += 1
        return entries

    def _line(self, ahead: int = 0) -> str:
        """A header line, without the CR of a converted patch; empty beyond the end."""
        at = self._at + ahead
        return self._lines[at].removesuffix("\r") if at < len(self._lines) else ""

    def _is_plain_header(self, at: int) -> bool:
        if at + 2 >= len(self._lines):
            return False
        old, new, head = self._lines[at : at + 3]
        return old.startswith("--- ") and new.startswith("+++ ") and head.startswith("@@ -")

    def _git_entry(self) -> DiffEntry:
        start = self._at
        entry = DiffEntry(git=True, is_converted=self._lines[start].endswith("\r"))
        header = self._line().removeprefix("diff --git ")
        self._at += 1
        sides: dict[str, str] = {}
        while (is_extended := _EXTENDED.match(self._line())) or self._line().startswith(("--- ", "+++ ")):
            if is_extended:
                entry.extended.append(self._line())
            else:
                sides[self._line()[:3]] = self._line()[4:]
            self._at += 1
        self._git_names(entry, header, sides)
        if not entry.names:
            raise PatchError(f"line {start + 1}: cannot tell the names of the files apart: {header!r}")
        if _HUNK.match(self._line()):
            self._hunks(entry)
        elif self._line() == "GIT binary patch":
            self._binary(entry)
        elif _NO_DATA.match(self._line()):
            entry.is_without_data = True
            self._at += 1
        return entry

    def _git_names(self, entry: DiffEntry, header: str, sides: Mapping[str, str]) -> None:
        """Read the names from the lines about a renaming, else from `---` and `+++`, else from the header."""
        old, new, level = _header_names(header, self._level)
        entry.has_lone_prefix = old is None and _has_lone_prefix(header)
        moved = {match[1] in ("from", "old"): line[match.end() :] for line, match in _moves(entry.extended)}
        if moved:
            old, new = (unquoted(moved[is_old]) if is_old in moved else None for is_old in (True, False))
            entry.has_lone_prefix = False
        elif len(sides) == 2:
            self._sides(entry, sides["---"], sides["+++"], level)
            return
        if old is None or new is None:
            return
        is_new, is_deleted = (
            sides.get(sign) == NOWHERE or any(line.startswith(f"{kind} file mode ") for line in entry.extended)
            for sign, kind in (("---", "new"), ("+++", "deleted"))
        )
        entry.old, entry.new = NOWHERE if is_new else old, NOWHERE if is_deleted and not is_new else new

    def _sides(self, entry: DiffEntry, old_line: str, new_line: str, level: int | None = None) -> None:
        """Read what follows `---` and `+++`."""
        old, new = (_name(line, has_time=not entry.git) for line in (old_line, new_line))
        if old == new == NOWHERE:
            raise PatchError("a file's header names /dev/null on both sides: it must name the file on one of them")
        if level is None:
            level = int(_are_prefixed(old, new)) if self._level is None else self._level
        entry.old, entry.new = _without(old, level), _without(new, level)
        if not entry.git and NOWHERE not in (old, new):
            entry.old, entry.new = _one_file(entry.old, entry.new, _is_epoch(old_line), _is_epoch(new_line))

    def _binary(self, entry: DiffEntry) -> None:
        lines = [self._line()]
        self._at += 1
        while self._at < len(self._lines) and (not self._line() or _BASE85.match(self._line())):
            lines.append(self._line())
            self._at += 1
        while not lines[-1]:
            lines.pop()
        entry.binary = [*lines, ""]

    def _hunks(self, entry: DiffEntry) -> None:
        while match := _HUNK.match(self._line()):
            self._at += 1
            entry.hunks.append(self._hunk(match, f"hunk {len(entry.hunks) + 1} of {entry.names[-1]}"))

    def _hunk(self, head: re.Match[str], name: str) -> DiffHunk:
        old_start, old_count, new_start, new_count, section = head.groups()
        expected = (int(old_count or 1), int(new_count or 1))
        body = self._counted(expected)
        beyond = [] if body is None else self._beyond()
        if body is not None and not any(line[:1] in SIDES for line in beyond):
            if beyond:
                self.omissions.append(
                    f"{name} goes on for {len(beyond)} unchanged lines beyond its header's counts: ignored"
                )
                self._at += len(beyond)
            return DiffHunk(int(old_start), int(new_start), section, tuple(body), head[0])
        start = self._at
        if body is None:
            body = [_signed(line) for line in self._run(self._at)]
            self._at += len(body)
            body = self._with_stripped_lines(body, expected, name)
        else:
            body += [_signed(line) for line in beyond]
            self._at += len(beyond)
        counts = line_counts(body)
        if not any(line[0] in SIDES for line in body):
            raise PatchError(f"{name} (line {start}) changes nothing: its lines must begin with '+', '-' or a space")
        rest = self._line()
        if rest.strip() and not _ends_hunk(rest) and sum(counts) < sum(expected):
            raise PatchError(f"{name}: line {self._at + 1} begins with none of '+', '-' and a space: {rest[:40]!r}")
        if beyond:
            lines = f"{len(beyond)} line{'s' if len(beyond) > 1 else ''}"
            self.repairs.append(f"{name} goes on for {lines} {BEYOND}: the counts are corrected")
        elif counts != expected:
            self.repairs.append(
                f"{name} has {counts[0]} old and {counts[1]} new lines, its header counts {expected[0]} and "
                f"{expected[1]}: the counts are corrected"
            )
        corrected = f"@@ -{old_start},{counts[0]} +{new_start},{counts[1]} @@{section}"
        return DiffHunk(int(old_start), int(new_start), section, tuple(body), corrected)

    def _counted(self, expected: tuple[int, int]) -> list[str] | None:
        """The lines that the header of a hunk counts; None if they do not fit."""
        (old, new), body, at = expected, [], self._at
        while (old or new) and at < len(self._lines):
            line = _signed(self._lines[at])
            sign = line[0]
            if sign not in "+- \\" or (sign == "-" and not old) or (sign == "+" and not new):
                return None
            if sign == " " and not (old and new):
                return None
            old, new = old - (sign in "- "), new - (sign in "+ ")
            body.append(line)
            at += 1
        if old or new:
            return None
        while at < len(self._lines) and self._lines[at].startswith("\\"):
            body.append(self._lines[at])
            at += 1
        self._at = at
        return body

    def _beyond(self) -> list[str]:
        """Lines of a hunk after those that its header counts. A list in the text after a blank line is none."""
        lines = self._run(self._at)
        if not lines or self._lines[self._at].strip("\r"):
            return lines
        changed = [line for line in lines if line[:1] in ("+", "-")]
        is_text = not changed or all(_BULLET.match(line) for line in changed)
        return [] if is_text else lines

    def _run(self, at: int) -> list[str]:
        """The lines from `at` on that look like those of a hunk, without blank lines at the end."""
        end = at
        while end < len(self._lines) and self._lines[end][:1] in ("", "\r", " ", "+", "-", "\\"):
            if self._is_plain_header(end) or self._is_signature(end):
                break
            end += 1
        while end > at and not self._lines[end - 1].strip("\r"):
            end -= 1
        return self._lines[at:end]

    def _is_signature(self, at: int) -> bool:
        """Is it the `-- ` before git's version, at the end of a mail, or a rule?"""
        line = self._lines[at].rstrip()
        if line not in ("--", "---"):
            return bool(_BOUNDARY.match(line))
        return at + 1 == len(self._lines) or self._lines[at + 1][:1] not in (" ", "+", "-", "\\")

    def _with_stripped_lines(self, body: list[str], expected: tuple[int, int], name: str) -> list[str]:
        """The body with the blank unchanged lines at its end that were stripped together with the last newline."""
        counts = line_counts(body)
        lacking = expected[0] - counts[0]
        is_stripped = self._is_cut and self._at >= len(self._lines) and lacking == expected[1] - counts[1]
        if not is_stripped or not 0 < lacking <= 3:
            return body
        self.repairs.append(f"{name} lacks the blank lines at its end, with the last newline: they are restored")
        return [*body, *[" "] * lacking]


def _signed(line: str) -> str:
    """The line of a hunk. Editors and models strip the sign of a blank unchanged line."""
    return f" {line}" if not line.strip("\r") else line


def _ends_hunk(line: str) -> bool:
    return line.startswith(("@@ -", "diff ", "--- ", "From ", "```", "--", "Index: ", "Only in "))


def _moves(extended: Sequence[str]) -> Iterator[tuple[str, re.Match[str]]]:
    return ((line, match) for line in extended if (match := _MOVED.match(line)))


def _without_cr(line: str) -> str:
    return line.removesuffix("\r")


@lru_cache(maxsize=1024)
def _header_names(header: str, level: int | None) -> tuple[str | None, str | None, int | None]:
    """The names in a `diff --git` line, which are equal but for their prefixes, and the number of their parts that
    are prefixes; None if they are not equal, as for a renamed file."""
    for old, new in _pairs(header):
        parts = level
        if level is None and old == new:
            parts = 0
        elif level is None and "/" in old and old.partition("/")[2] == new.partition("/")[2]:
            parts = 1
        if parts is not None and _without(old, parts) == _without(new, parts):
            return _without(old, parts), _without(new, parts), parts
    return None, None, None


def _pairs(header: str) -> list[tuple[str, str]]:
    """The pairs of names that a `diff --git` line may have; the likeliest first."""
    if header.startswith('"') or header.endswith('"'):
        pair = re.fullmatch(rf"({QUOTED}|\S.*?) ({QUOTED}|\S.*)", header)
        return [(unquoted(pair[1]), unquoted(pair[2]))] if pair else []
    spaces = sorted(
        (place for place, sign in enumerate(header) if sign == " "), key=lambda at: abs(2 * at + 1 - len(header))
    )
    return [(header[:place], header[place + 1 :]) for place in spaces[:MOST_SPACES]]


def _has_lone_prefix(header: str) -> bool:
    """Has one of two names a prefix, as with `--no-prefix --dst-prefix=new/`?"""
    return any(new.endswith(f"/{old}") or old.endswith(f"/{new}") for old, new in _pairs(header))


def _name(text: str, *, has_time: bool = False) -> str:
    """The name in a `---` or `+++` line: without quotes, and without what follows a tab. Only headers of other tools
    than git have a time (`has_time`) after spaces."""
    if text.startswith('"') and (end := re.match(QUOTED, text)):
        return unquoted(end[0])
    return _TIME.sub("", text).partition("\t")[0].rstrip() if has_time else text.partition("\t")[0]


def _is_epoch(text: str) -> bool:
    """Does a `---` or `+++` line have the time with which `diff -N` marks a missing file?"""
    time = _TIME.search(text)
    days = {"1970-01-01": 0, "1969-12-31": -1}.get(time[1]) if time else None
    if time is None or days is None:
        return False
    hours, minutes = map(int, time[2].split(":"))
    zone = time[3] or "+0000"
    offset = int(f"{zone[0]}1") * (60 * int(zone[1:3]) + int(zone[3:]))
    return 60 * (24 * days + hours) + minutes == offset


def _one_file(old: str, new: str, is_new: bool, is_deleted: bool) -> tuple[str, str]:
    """The two names of a file in a diff of another tool than git, which renames none: both are that of the new file,
    but for an addition to the old name, such as `.new`."""
    name = old if new.startswith(old) else new
    return NOWHERE if is_new else name, NOWHERE if is_deleted and not is_new else name


def _are_prefixed(old: str, new: str) -> bool:
    if NOWHERE in (old, new):
        return (new if old == NOWHERE else old).startswith(("a/", "b/", "i/", "w/", "c/", "o/", "1/", "2/"))
    first, second = old.partition("/"), new.partition("/")
    if not first[2] or not second[2]:
        return False
    return first[0] != second[0] or (first[0] in ("a", "b") and first[2] == second[2])


def _without(name: str, level: int) -> str:
    """A name without its first `level` parts."""
    if name == NOWHERE:
        return name
    rest = name.partition("/")[2] if level else name
    return (
        str(PurePosixPath(rest))
        if not rest or "//" in rest or "." in (rest[0], rest[-1]) or "/." in rest or rest[-1] == "/"
        else rest
    )
