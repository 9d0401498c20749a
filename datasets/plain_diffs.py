"""A patch as one plain diff: its entries, one a file, with their hunks; and names as git writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

NOWHERE = "/dev/null"
BEYOND = "beyond its header's counts"
"""In the repair of a hunk with uncounted lines."""
SIDES = ("+", "-")
"""Signs of the changed lines of a hunk."""
QUOTED = r'"(?:[^"\\]|\\.)*"'
"""A name in git's quotes, as a regular expression."""
_ESCAPE = re.compile(rb'\\([0-3][0-7]{2}|[abtnvfr"\\])')
_ESCAPES = dict(
    zip((bytes([sign]) for sign in b'abtnvfr"\\'), (bytes([sign]) for sign in b'\a\b\t\n\v\f\r"\\'), strict=True)
)
"""The escapes in names that git quotes (its quote.c)."""
_TO_QUOTE = re.compile(r'[\x00-\x1f\x7f"\\]')


@dataclass(frozen=True)
class DiffHunk:
    """A hunk, with counts that hold."""

    old_start: int
    new_start: int
    section: str
    """What follows the second `@@` in its header."""
    lines: tuple[str, ...]
    """With their signs, also `\\ No newline at end of file`."""
    head: str
    """Its header line."""

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of the lines before and after."""
        return line_counts(self.lines)

    @property
    def added(self) -> int:
        return sum(line[0] == "+" for line in self.lines)

    @property
    def removed(self) -> int:
        return sum(line[0] == "-" for line in self.lines)

    def numbered(self, sign: str) -> Iterator[tuple[int, str]]:
        """(1-based line number, text) of each line with this sign: "+", in the file after, or "-", in that before."""
        number = (self.new_start, self.old_start)[SIDES.index(sign)]
        for line in self.lines:
            if line[0] == sign:
                yield number, line[1:]
            number += line[0] in (" ", sign)

    def without_cr(self) -> DiffHunk:
        return replace(self, lines=tuple(line.removesuffix("\r") for line in self.lines))


@dataclass
class DiffEntry:
    """One file's entry in a patch."""

    old: str = ""
    """Name before the patch, without prefix and quotes; NOWHERE for a new file."""
    new: str = ""
    git: bool = False
    """Does it begin with `diff --git`?"""
    extended: list[str] = field(default_factory=list)
    """Git's lines about modes, renames and blobs."""
    hunks: list[DiffHunk] = field(default_factory=list)
    binary: list[str] = field(default_factory=list)
    """The lines of a `GIT binary patch`."""
    is_without_data: bool = False
    """Is it a binary file whose content the patch lacks?"""
    is_converted: bool = False
    """Do its header lines end in CR?"""
    has_lone_prefix: bool = False
    """Has one of the names in its first line a prefix, and the other none? Or has the file moved: nobody can tell."""

    @property
    def names(self) -> list[str]:
        return [name for name in (self.old, self.new) if name not in ("", NOWHERE)]

    @property
    def is_submodule(self) -> bool:
        return any(re.fullmatch(r"(?:\w+ ){1,3}mode 160000|index \S+ 160000", line) for line in self.extended)

    def without_cr(self) -> DiffEntry:
        """The entry without the CR at the ends of its hunks' lines, if the whole patch was converted to CR LF."""
        return replace(self, hunks=[hunk.without_cr() for hunk in self.hunks]) if self.is_converted else self

    def written(self) -> Iterator[str]:
        """Its lines, with the prefixes `a/` and `b/`."""
        if self.git:
            yield git_header(self.old, self.new)
            yield from self.extended
        if self.hunks:
            yield f"--- {side('a', self.old)}"
            yield f"+++ {side('b', self.new)}"
        for hunk in self.hunks:
            yield hunk.head
            yield from hunk.lines
        yield from self.binary


@dataclass(frozen=True)
class PlainDiff:
    """A patch as one plain diff: only the entries of files, with the prefixes `a/` and `b/`, and counts that hold."""

    entries: tuple[DiffEntry, ...]
    repairs: tuple[str, ...]
    """One line for each repair of a malformed patch."""
    omissions: tuple[str, ...]
    """One line for each part of the patch that is left out, as caches are."""
    text: str
    text_with_cr: str
    """The same with the CR at the ends of the hunks' lines, if the whole patch was converted to CR LF."""

    @property
    def has_context(self) -> bool:
        """Has any hunk of an existing file an unchanged line? A diff of `git diff -U0` has none."""
        hunks = [hunk for entry in self.entries if len(entry.names) == 2 for hunk in entry.hunks]
        return not hunks or any(line.startswith(" ") for hunk in hunks for line in hunk.lines)

    @property
    def has_uncounted_lines(self) -> bool:
        """Does a hunk go on beyond its header's counts? `git apply` ignores such lines in silence."""
        return any(BEYOND in repair for repair in self.repairs)

    @property
    def has_sure_names(self) -> bool:
        """Has each entry one name, but for a file that the patch itself calls renamed or copied?"""
        return all(
            len(set(entry.names)) == 1 or any(line.startswith(("rename ", "copy ")) for line in entry.extended)
            for entry in self.entries
        )


def line_counts(lines: Sequence[str]) -> tuple[int, int]:
    """Numbers of a hunk's lines before and after."""
    return sum(line[0] in "- " for line in lines), sum(line[0] in "+ " for line in lines)


def git_header(old: str, new: str) -> str:
    """The `diff --git` line of a file; one of the names may be NOWHERE."""
    before, after = (new if old == NOWHERE else old), (old if new == NOWHERE else new)
    return f"diff --git {quoted(f'a/{before}')} {quoted(f'b/{after}')}"


def side(letter: str, name: str) -> str:
    """A name in a `---` or `+++` line. A tab ends a name with a space, as in git's own output."""
    if name == NOWHERE:
        return name
    shown = quoted(f"{letter}/{name}")
    return f"{shown}\t" if " " in shown and not shown.startswith('"') else shown


def quoted(name: str) -> str:
    """A name as git writes it: in quotes if it contains quotes, backslashes or control characters."""
    if not _TO_QUOTE.search(name):
        return name
    escaped = _TO_QUOTE.sub(lambda sign: f"\\{sign[0]}" if sign[0] in '"\\' else f"\\{ord(sign[0]):03o}", name)
    return f'"{escaped}"'


def unquoted(name: str) -> str:
    """A name without git's quotes and escapes, which git uses for letters beyond ASCII, for example."""
    if len(name) < 2 or not name.startswith('"') or not name.endswith('"'):
        return name
    escaped = name[1:-1].encode("utf-8", "surrogateescape")
    return _ESCAPE.sub(_unescape, escaped).decode("utf-8", "surrogateescape")


def _unescape(escape: re.Match[bytes]) -> bytes:
    sign = escape[1]
    return bytes([int(sign, 8)]) if sign.isdigit() else _ESCAPES[sign]
