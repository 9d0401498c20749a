"""One reading of a patch for every command and interface: what git prints, mails and models write, as one plain diff.

docs/patches.md lists the forms that are read, and the malformed ones that are repaired, each with a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from regrade.datasets.errors import PatchError

NOWHERE = "/dev/null"
CACHES = frozenset({"__pycache__", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache"})
"""Folders that Python's tools write; what they contain is left out of a patch."""
COMPILED = (".pyc", ".pyo")
NO_DATA = "is a binary file without its data: the patch was made without --binary, use `git diff --binary`"

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)")
_EXTENDED = re.compile(
    r"(?:index |old mode |new mode |new file mode |deleted file mode |similarity index |dissimilarity index "
    r"|rename (?:from|to|old|new) |copy (?:from|to) )"
)
_BASE85 = re.compile(r"(?:(?:literal|delta) \d+|[A-Za-z]\S+)$")
_NO_DATA = re.compile(r"(?:Binary files .+ differ|Files .+ differ)$")
_BULLET = re.compile(r"- \S")
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_ESCAPE = re.compile(rb'\\([0-3][0-7]{2}|[abtnvfr"\\])')
_ESCAPES = dict(
    zip((bytes([sign]) for sign in b'abtnvfr"\\'), (bytes([sign]) for sign in b'\a\b\t\n\v\f\r"\\'), strict=True)
)
"""The escapes in names that git quotes (its quote.c)."""
_TO_QUOTE = re.compile(r'[\x00-\x1f\x7f"\\]')


@dataclass(frozen=True)
class PlainDiff:
    """A patch as one plain diff: only the entries of files, with the prefixes `a/` and `b/`, and counts that hold."""

    text: str
    notes: tuple[str, ...]
    """One line for each repair, and for the files that are left out."""
    text_with_cr: str
    """The same with the CR at the ends of the hunks' lines, if the whole patch was converted to CR LF."""
    has_context: bool
    """Has any hunk of an existing file an unchanged line? A diff of `git diff -U0` has none."""


@dataclass
class _Entry:
    """One file's entry in a patch."""

    old: str = ""
    """Name before the patch, without prefix and quotes; NOWHERE for a new file."""
    new: str = ""
    git: bool = False
    """Does it begin with `diff --git`?"""
    extended: list[str] = field(default_factory=list)
    hunks: list[list[str]] = field(default_factory=list)
    """The lines of each hunk, header first."""
    binary: list[str] = field(default_factory=list)
    is_without_data: bool = False
    is_converted: bool = False
    """Do its header lines end in CR?"""

    @property
    def names(self) -> list[str]:
        return [name for name in (self.old, self.new) if name != NOWHERE]

    def written(self, *, keep_cr: bool) -> Iterator[str]:
        old, new = (self.new if self.old == NOWHERE else self.old), (self.old if self.new == NOWHERE else self.new)
        if self.git:
            yield f"diff --git {quoted(f'a/{old}')} {quoted(f'b/{new}')}"
            yield from self.extended
        if self.hunks:
            yield f"--- {_side('a', self.old)}"
            yield f"+++ {_side('b', self.new)}"
        for head, *lines in self.hunks:
            yield head
            yield from lines if keep_cr or not self.is_converted else (line.removesuffix("\r") for line in lines)
        yield from self.binary


def _side(letter: str, name: str) -> str:
    """A name in a `---` or `+++` line. A tab ends a name with a space, as in git's own output."""
    if name == NOWHERE:
        return name
    shown = quoted(f"{letter}/{name}")
    return f"{shown}\t" if " " in shown and not shown.startswith('"') else shown


def plain_diff(text: str, level: int | None = None) -> PlainDiff:
    """A patch as a plain diff.

    Args:
        level: parts of a name that are its prefix (0 or 1); None: as the names look.

    Raises:
        PatchError: a hunk is malformed beyond repair, or a binary file has no data; with file, hunk and line.
    """
    reader = _Reader(text.split("\n"), ends_in_newline=text.endswith("\n"), level=level)
    entries, notes = reader.entries(), reader.notes
    left_out = [entry for entry in entries if all(map(is_cache, entry.names))]
    if left_out:
        names = list(dict.fromkeys(name for entry in left_out for name in entry.names))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        notes.append(f"caches in the patch are left out: {', '.join(names[:3])}{more}")
    kept = [entry for entry in entries if entry not in left_out]
    for entry in kept:
        if entry.is_without_data:
            raise PatchError(f"{entry.names[-1]!r} {NO_DATA}")
    lines = [line for entry in kept for line in entry.written(keep_cr=False)]
    is_converted = any(entry.is_converted for entry in kept)
    if is_converted:
        notes.append("the patch was converted to CR LF: the CR at the ends of its lines is ignored")
    with_cr = [line for entry in kept for line in entry.written(keep_cr=True)] if is_converted else lines
    hunks = [hunk for entry in kept if len(entry.names) == 2 for hunk in entry.hunks]
    has_context = any(line.startswith(" ") for hunk in hunks for line in hunk[1:])
    return PlainDiff(_joined(lines), tuple(notes), _joined(with_cr), has_context or not hunks)


def is_cache(path: str) -> bool:
    """Is it a file that Python's tools write by themselves, or compiled Python, which cannot be read?"""
    return bool(CACHES.intersection(path.split("/"))) or path.endswith(COMPILED)


def unquoted(name: str) -> str:
    """A name without git's quotes and escapes, which git uses for letters beyond ASCII, for example."""
    if len(name) < 2 or not name.startswith('"') or not name.endswith('"'):
        return name
    escaped = name[1:-1].encode("utf-8", "surrogateescape")
    return _ESCAPE.sub(_unescape, escaped).decode("utf-8", "surrogateescape")


def _unescape(escape: re.Match[bytes]) -> bytes:
    sign = escape[1]
    return bytes([int(sign, 8)]) if sign.isdigit() else _ESCAPES[sign]


def quoted(name: str) -> str:
    """A name as git writes it: in quotes if it contains quotes, backslashes or control characters."""
    if not _TO_QUOTE.search(name):
        return name
    escaped = _TO_QUOTE.sub(lambda sign: f"\\{sign[0]}" if sign[0] in '"\\' else f"\\{ord(sign[0]):03o}", name)
    return f'"{escaped}"'


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


class _Reader:
    """Reads the entries of a patch, line by line. Text around them is ignored, as by git."""

    def __init__(self, lines: list[str], *, ends_in_newline: bool, level: int | None) -> None:
        self._lines = lines[:-1] if ends_in_newline else lines
        self._is_cut = not ends_in_newline
        """Whoever stripped the last newline may have stripped blank lines before it."""
        self._level = level
        self._at = 0
        self.notes: list[str] = []

    def entries(self) -> list[_Entry]:
        entries = []
        while self._at < len(self._lines):
            if self._line().startswith("diff --git "):
                entries.append(self._git_entry())
            elif self._is_plain_header(self._at):
                entry = _Entry()
                self._sides(entry)
                self._hunks(entry)
                entries.append(entry)
            elif _HUNK.match(self._line()):
                number = self._at + 1
                raise PatchError(f"line {number}: a hunk without a file header (`--- a/FILE`, `+++ b/FILE`) before it")
            else:
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

    def _git_entry(self) -> _Entry:
        start = self._at
        entry = _Entry(git=True, is_converted=self._lines[start].endswith("\r"))
        header = self._line().removeprefix("diff --git ")
        first, second, level = self._header_names(header)
        both: list[str | None] = [first, second]
        self._at += 1
        while _EXTENDED.match(self._line()):
            entry.extended.append(self._line())
            self._at += 1
        moved = {line.split(" ", 2)[1]: unquoted(line.split(" ", 2)[2]) for line in entry.extended if _is_move(line)}
        if moved:
            both = [moved.get("from"), moved.get("to")]
        if self._line().startswith("--- ") and self._line(1).startswith("+++ "):
            self._sides(entry, level)
            self._hunks(entry)
        elif self._line() == "GIT binary patch":
            self._binary(entry)
        elif _NO_DATA.match(self._line()):
            entry.is_without_data = True
            self._at += 1
        if not entry.new or moved:
            old, new = both
            if old is None or new is None:
                raise PatchError(f"line {start + 1}: cannot tell the names of the files apart: {header!r}")
            entry.old, entry.new = old, new
            if any(line.startswith("new file mode ") for line in entry.extended):
                entry.old = NOWHERE
            if any(line.startswith("deleted file mode ") for line in entry.extended):
                entry.new = NOWHERE
        return entry

    def _header_names(self, header: str) -> tuple[str | None, str | None, int | None]:
        """The names in a `diff --git` line, which are equal but for their prefixes, and the number of their parts that
        are prefixes; None if they are not equal, as for a renamed file."""
        pairs = [(header[: space.start()], header[space.end() :]) for space in re.finditer(" ", header)]
        if header.startswith('"') or header.endswith('"'):
            pair = re.fullmatch(rf"({_QUOTED}|\S.*?) ({_QUOTED}|\S.*)", header)
            pairs = [(unquoted(pair[1]), unquoted(pair[2]))] if pair else []
        pairs.sort(key=lambda pair: abs(len(pair[0]) - len(pair[1])))
        for old, new in pairs:
            level = self._level
            if level is None and old == new:
                level = 0
            elif level is None and "/" in old and old.partition("/")[2] == new.partition("/")[2]:
                level = 1
            if level is not None and _without(old, level) == _without(new, level):
                return _without(old, level), _without(new, level), level
        return None, None, None

    def _sides(self, entry: _Entry, level: int | None = None) -> None:
        entry.is_converted = entry.is_converted or self._lines[self._at].endswith("\r")
        old, new = (_name(self._line(ahead)[4:]) for ahead in (0, 1))
        if old == new == NOWHERE:
            raise PatchError("a file's header names /dev/null on both sides: it must name the file on one of them")
        if level is None:
            level = int(_are_prefixed(old, new)) if self._level is None else self._level
        entry.old, entry.new = _without(old, level), _without(new, level)
        self._at += 2

    def _binary(self, entry: _Entry) -> None:
        lines = [self._line()]
        self._at += 1
        while self._at < len(self._lines) and (not self._line() or _BASE85.match(self._line())):
            lines.append(self._line())
            self._at += 1
        while not lines[-1]:
            lines.pop()
        entry.binary = [*lines, ""]

    def _hunks(self, entry: _Entry) -> None:
        while match := _HUNK.match(self._line()):
            self._at += 1
            entry.hunks.append(self._hunk(match, f"hunk {len(entry.hunks) + 1} of {entry.names[-1]}"))

    def _hunk(self, head: re.Match[str], name: str) -> list[str]:
        old_start, old_count, new_start, new_count, section = head.groups()
        expected = (int(old_count or 1), int(new_count or 1))
        body = self._counted(expected)
        beyond = self._beyond()
        if body is not None and not any(line[:1] in ("+", "-") for line in beyond):
            if beyond:
                self.notes.append(
                    f"{name} goes on for {len(beyond)} unchanged lines beyond its header's counts: ignored"
                )
                self._at += len(beyond)
            return [head[0], *body]
        start = self._at
        if body is None:
            body = [_signed(line) for line in self._run(self._at)]
            self._at += len(body)
            body = self._with_stripped_lines(body, expected, name)
        else:
            body += [_signed(line) for line in beyond]
            self._at += len(beyond)
        counts = _counts(body)
        if not any(line[:1] in ("+", "-") for line in body):
            raise PatchError(f"{name} (line {start}) changes nothing: its lines must begin with '+', '-' or a space")
        rest = self._line()
        if rest.strip() and not _ends_hunk(rest) and sum(counts) < sum(expected):
            raise PatchError(f"{name}: line {self._at + 1} begins with none of '+', '-' and a space: {rest[:40]!r}")
        if beyond:
            lines = f"{len(beyond)} line{'s' if len(beyond) > 1 else ''}"
            self.notes.append(f"{name} goes on for {lines} beyond its header's counts: the counts are corrected")
        elif counts != expected:
            self.notes.append(
                f"{name} has {counts[0]} old and {counts[1]} new lines, its header counts {expected[0]} and "
                f"{expected[1]}: the counts are corrected"
            )
        return [f"@@ -{old_start},{counts[0]} +{new_start},{counts[1]} @@{section}", *body]

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
        if self._lines[at].rstrip() not in ("--", "---"):
            return False
        return at + 1 == len(self._lines) or self._lines[at + 1][:1] not in (" ", "+", "-", "\\")

    def _with_stripped_lines(self, body: list[str], expected: tuple[int, int], name: str) -> list[str]:
        """The body with the blank unchanged lines at its end that were stripped together with the last newline."""
        counts = _counts(body)
        lacking = expected[0] - counts[0]
        is_stripped = self._is_cut and self._at >= len(self._lines) and lacking == expected[1] - counts[1]
        if not is_stripped or not 0 < lacking <= 3:
            return body
        self.notes.append(f"{name} lacks the blank lines at its end, with the last newline: they are restored")
        return [*body, *[" "] * lacking]


def _counts(body: Sequence[str]) -> tuple[int, int]:
    """Numbers of the lines before and after."""
    return sum(line[0] in "- " for line in body), sum(line[0] in "+ " for line in body)


def _signed(line: str) -> str:
    """The line of a hunk. Editors and models strip the sign of a blank unchanged line."""
    return f" {line}" if not line.strip("\r") else line


def _ends_hunk(line: str) -> bool:
    return line.startswith(("@@ -", "diff ", "--- ", "From ", "```", "--", "Index: ", "Only in "))


def _is_move(line: str) -> bool:
    return line.startswith(("rename from ", "rename to ", "copy from ", "copy to "))


def _name(text: str) -> str:
    """The name in a `---` or `+++` line: without the time after a tab, and without quotes."""
    if text.startswith('"'):
        end = re.match(_QUOTED, text)
        return unquoted(end[0]) if end else text
    name = text.partition("\t")[0]
    return re.sub(r" +\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?: [+-]\d{4})?$", "", name).rstrip()


def _are_prefixed(old: str, new: str) -> bool:
    if NOWHERE in (old, new):
        return (new if old == NOWHERE else old).startswith(("a/", "b/", "i/", "w/", "c/", "o/", "1/", "2/"))
    first, second = old.partition("/"), new.partition("/")
    if not first[2] or not second[2]:
        return False
    return first[0] != second[0] or (first[0] in ("a", "b") and first[2] == second[2])


def _without(name: str, level: int) -> str:
    """A name without its first `level` parts."""
    return name if name == NOWHERE else str(PurePosixPath(name.partition("/")[2] if level else name))
