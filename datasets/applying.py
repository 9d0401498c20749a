"""Applying a patch to a tree, with `git apply`, strictly, and only to plain text files."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from regrade.datasets.limited_processes import run_within
from regrade.datasets.patch_forms import CONVERTED, is_cache, named_files
from regrade.datasets.patches import Patch, PatchedFile, PatchError, check_path, is_safe, parsed_files
from regrade.datasets.plain_diffs import PlainDiff
from regrade.datasets.process_identity import this_process
from regrade.datasets.tasks import Tree

DOES_NOT_APPLY = "the patch does not apply to the task's base: "
"""Prefix of a PatchError's message if git rejects the patch."""
CPU_SECONDS, MEMORY_MB = 60, 1024
"""Limits of `git apply`, which keeps all files after the patch in memory: a small patch can make files without end."""


def apply_patch(tree: Tree, patch: Patch) -> Tree:
    """The tree with the patch applied.

    Raises:
        PatchError: the patch cannot be parsed, does not apply, or changes other files than plain text files of the
            tree; with the reason.
        OSError: the disk is full, for example, or git is not installed.
    """
    return with_changes(tree, changed_files(tree, patch))


def with_changes(tree: Tree, files: Mapping[str, str | None]) -> Tree:
    """The tree with files written (path -> text) and deleted (path -> None)."""
    written = tree.with_files({path: text for path, text in files.items() if text is not None})
    return written.without(path for path, text in files.items() if text is None)


def changed_files(tree: Tree, patch: Patch) -> Mapping[str, str | None]:
    """Path -> text after the patch (None: deleted) of each file whose content it changes: the difference of two trees.

    `git apply` decides what a patch changes, not the names in its headers. It runs in a folder of only the files that
    the patch names. Caches are left out.

    Raises:
        PatchError, OSError: see `apply_patch`.
    """
    return _applied(_Application(tree, patch)).files


def as_applied(tree: Tree, patch: Patch) -> Patch:
    """The patch as a plain diff that does the same to this tree: with its names, and its CR or none.

    Raises:
        PatchError, OSError: see `apply_patch`.
    """
    applied = _applied(_Application(tree, patch))
    if applied.reading.diff is not None:
        return Patch(applied.reading.text)
    for reading in _repaired(tree, patch):
        with contextlib.suppress(PatchError):
            other = Patch(reading.text)
            if changed_files(tree, other) == applied.files:
                return other
    texts = {path: _text(_content(tree, path)) for path in applied.files}
    return Patch.between(
        {path: text for path, text in texts.items() if text is not None},
        {path: text for path, text in applied.files.items() if text is not None},
    )


def notes_on(tree: Tree, patch: Patch) -> tuple[str, ...]:
    """One line for each repair that this tree needs, and for each part of the patch that is left out.

    Raises:
        PatchError, OSError: see `apply_patch`.
    """
    reading = _applied(_Application(tree, patch)).reading
    if reading.diff is not None:
        is_without_cr = reading.text == reading.diff.text
        repairs = (note for note in reading.diff.repairs if note != CONVERTED or is_without_cr)
        return (*repairs, *reading.diff.omissions)
    with contextlib.suppress(PatchError):
        return patch.plain.omissions
    return ()


_SUBMODULE = re.compile(r"^(?:(?:new file|new|old|deleted file) mode 160000|index \S+ 160000)\r?$", re.MULTILINE)


@dataclass(frozen=True)
class _Reading:
    """One possible meaning of a patch."""

    text: str
    """What `git apply` gets."""
    diff: PlainDiff | None = None
    """None: the patch as it is."""
    without_context: bool = False


@dataclass(frozen=True)
class Applied:
    """What a patch does to one tree."""

    files: Mapping[str, str | None]
    """See `changed_files`."""
    reading: _Reading


@dataclass(frozen=True, eq=False)
class _Application:
    """A patch on one tree, as a cache key."""

    tree: Tree
    patch: Patch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Application) and self.tree is other.tree and self.patch == other.patch

    def __hash__(self) -> int:
        return hash((id(self.tree), self.patch.text))


MOST_OUTCOMES = 32
_LATEST: dict[_Application, Applied | PatchError] = {}
"""The latest outcomes, the oldest first."""
_LOCK = threading.Lock()


def outcome(tree: Tree, patch: Patch) -> Applied | PatchError:
    """What the patch does, or why it does not apply; for `remember` in another process.

    Raises:
        OSError: see `apply_patch`.
    """
    try:
        return _applied(_Application(tree, patch))
    except PatchError as error:
        return PatchError(*error.args)


def remember(tree: Tree, patch: Patch, known: Applied | PatchError) -> None:
    """Use the outcome that another process found for this tree and patch."""
    with _LOCK:
        _LATEST[_Application(tree, patch)] = known
        while len(_LATEST) > MOST_OUTCOMES:
            del _LATEST[next(iter(_LATEST))]


def _applied(application: _Application) -> Applied:
    """Every probe of one patch asks for it."""
    known = _LATEST.get(application)
    if known is None:
        try:
            known = _found(application)
        except PatchError as error:
            known = PatchError(*error.args)
        remember(application.tree, application.patch, known)
    if isinstance(known, PatchError):
        raise PatchError(*known.args)
    return known


def _found(application: _Application) -> Applied:
    tree, patch = application.tree, application.patch
    if not patch.text.strip():
        return Applied({}, _Reading(""))
    patch.check_size()
    if _SUBMODULE.search(patch.text):
        _ = patch.plain  # refuses a submodule, for which git makes an empty folder
    before, unreadable = _named_contents(tree, patch)
    reading, after = _after(tree, patch, before, unreadable)
    changed = {
        path: _text(after.get(path)) for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    }
    _check_reviewable(tree, patch, reading, before, after)
    gone = {path for path, text in changed.items() if text is None}
    for path in changed.keys() - before.keys():
        check_path(path)
        _check_free(tree, path, gone)
    return Applied({path: content for path, content in changed.items() if not is_cache(path)}, reading)


def _named_contents(tree: Tree, patch: Patch) -> tuple[dict[str, bytes], dict[str, PatchError]]:
    """The content of each file of the tree that the patch may name; and why it cannot be patched, of the others."""
    contents, unreadable = {}, {}
    for path in filter(is_safe, named_files(patch.text)):
        try:
            for parent in () if path in tree.replaced else parents(path):
                if (tree.root / parent).is_symlink():
                    raise PatchError(f"{path!r} lies in {parent!r}, which is a link: `git apply` goes through none")
            if path not in tree.replaced and (tree.root / path).is_symlink():
                raise PatchError(f"{path!r} is a link in the repository: only plain files may be patched")
            content = _content(tree, path)
        except PatchError as error:
            unreadable[path] = error
        except OSError:  # a name that no file can have, being too long
            continue
        else:
            if content is not None:
                contents[path] = content
    return contents, unreadable


def _readings(tree: Tree, patch: Patch, before: Mapping[str, bytes]) -> Iterator[_Reading]:
    """The possible readings of a patch, the first choice first: as it is, unless git would ignore lines of a hunk; then
    as a plain diff.

    Raises:
        PatchError: it has no plain diff, or none but git itself can tell its names.
    """
    if not _has_uncounted_lines(patch):
        yield _Reading(patch.text)
    for entry in patch.plain.entries:
        if entry.has_lone_prefix:
            advice = "give both names one, as `git diff` does"
            raise PatchError(f"{DOES_NOT_APPLY}{entry.names[-1]!r} has a prefix on one side alone: {advice}")
    for reading in _repaired(tree, patch):
        assert reading.diff is not None
        yield reading
        if reading.diff.text_with_cr != reading.text:
            yield _Reading(reading.diff.text_with_cr, reading.diff)
        if not reading.diff.has_context and _is_exact(before, parsed_files(reading.diff)):
            yield _Reading(reading.text, reading.diff, without_context=True)


def _has_uncounted_lines(patch: Patch) -> bool:
    try:
        return patch.plain.has_uncounted_lines
    except PatchError:
        return False


def _repaired(tree: Tree, patch: Patch) -> list[_Reading]:
    """The patch as plain diffs: with the prefixes that lead to files of the tree, if those that its names seem to have
    do not; and with the latter. Raises PatchError, as `Patch.files`."""
    others = []
    for level in (0, 1):
        with contextlib.suppress(PatchError):
            other = patch.read(level)
            files = parsed_files(other)
            if other.has_sure_names and _has_old_files(tree, files) and any(file.old_path for file in files):
                others.append(other)
    diffs = [patch.plain, *others] if _has_old_files(tree, patch.files) else [*others, patch.plain]
    return list({diff.text: _Reading(diff.text, diff) for diff in diffs}.values())


def _has_old_files(tree: Tree, files: Sequence[PatchedFile]) -> bool:
    """Does the tree have a file of each entry, before or after it? (Entries may build on earlier ones.)"""
    created = {file.path for file in files}
    return all(
        file.old_path is None
        or any(_has(tree, path) for path in (file.old_path, file.path))
        or file.old_path in created
        for file in files
    ) and any(file.old_path is None or _has(tree, file.old_path) or _has(tree, file.path) for file in files)


def _has(tree: Tree, path: str) -> bool:
    return path in tree.replaced or (path not in tree.removed and os.path.lexists(tree.root / path))


def _after(
    tree: Tree, patch: Patch, before: Mapping[str, bytes], unreadable: Mapping[str, PatchError]
) -> tuple[_Reading, dict[str, bytes]]:
    """The first of the patch's readings that applies, and the files after `git apply`."""
    reason, reasons = "", dict[str, str]()
    for reading in _readings(tree, patch, before):
        if not reading.text:
            return reading, dict(before)
        if reading.text in reasons and not reading.without_context:  # a plain diff that is the patch as it is
            reason = reason or reasons[reading.text]
            continue
        # The scratch folder of a killed process: the next scorer removes it, by its name.
        with tempfile.TemporaryDirectory(prefix=f"regrade-{this_process()}-apply-") as name:
            folder = Path(name, "tree")
            folder.mkdir()
            for path, content in before.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
            refused = _git_apply(folder, reading.text, without_context=reading.without_context)
            if not refused:
                return reading, _files_in(folder)
        reasons[reading.text] = refused
        if reading.diff is not None:  # of the reasons, the one against the likeliest reading
            reason = reason or refused
    for file in patch.files:
        for named in (file.path, file.old_path):
            if named is not None and named in unreadable:
                raise unreadable[named]
    advice = _advice(before, patch.plain) if "patch failed" in reason else ""
    raise PatchError(f"{DOES_NOT_APPLY}{reason}{advice}")


def _is_exact(before: Mapping[str, bytes], files: Sequence[PatchedFile]) -> bool:
    """Are the removed lines where their numbers say? Without unchanged lines, `git apply` would look elsewhere too."""
    for file in files:
        lines = (_text(before.get(file.old_path or file.path)) or "").split("\n")
        if any(number > len(lines) or lines[number - 1] != text for number, text in file.removed):
            return False
    return True


def _advice(before: Mapping[str, bytes], plain: PlainDiff) -> str:
    """A likely reason why a patch does not apply, beyond git's."""
    with_cr = sorted(path for path, content in before.items() if b"\r\n" in content)
    if with_cr and "\r\n" not in plain.text and plain.text_with_cr == plain.text:
        return f"; the lines of {with_cr[0]!r} end in CR LF, those of the patch do not: make it without converting them"
    if not plain.has_context:
        return "; its hunks have no unchanged lines, so their line numbers must be exact: make it without -U0"
    return ""


def text_of(tree: Tree, path: str) -> str | None:
    """The text of a plain file of the tree; None if there is none.

    Raises:
        PatchError: the path leaves the repository through a link.
    """
    return _text(_content(tree, path))


def parents(path: str) -> list[str]:
    """The folders above a path, outermost first: `a/b/c.py` -> `a`, `a/b`."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _check_reviewable(
    tree: Tree, patch: Patch, reading: _Reading, before: Mapping[str, bytes], after: Mapping[str, bytes]
) -> None:
    """A change of text must consist of lines: nobody can review a binary patch."""
    if "GIT binary patch" not in reading.text:
        return
    diffs = [reading.diff] if reading.diff is not None else [other.diff for other in _repaired(tree, patch)]
    names = {
        name for diff in diffs if diff is not None for entry in diff.entries if entry.binary for name in entry.names
    }
    for path in sorted(names):
        contents = before.get(path), after.get(path)
        if contents[0] != contents[1] and any(contents) and not any(b"\0" in (content or b"") for content in contents):
            raise PatchError(f"{path!r} is a text file in a binary patch: use `git diff --text`")


def _check_free(tree: Tree, path: str, gone: set[str]) -> None:
    """No file or folder may exist at the path of a created file. `git apply` sees only the files that a patch names."""
    if _has(tree, path) and not (tree.root / path).is_dir():
        raise PatchError(f"the patch creates {path!r}, which exists: make the patch against the task's base")
    if (tree.root / path).is_dir() or any(name.startswith(f"{path}/") for name in tree.replaced):
        raise PatchError(f"the patch creates the file {path!r}, but there is a folder of that name")
    for parent in parents(path):
        if parent not in tree.replaced and (tree.root / parent).is_symlink():
            raise PatchError(f"the patch creates {path!r}, but {parent!r} is a link: `git apply` goes through none")
        if parent not in gone and _content(tree, parent) is not None:
            raise PatchError(f"the patch creates {path!r}, but {parent!r} is a file, not a folder")


def _content(tree: Tree, path: str) -> bytes | None:
    if path in tree.replaced:
        return tree.replaced[path].encode("utf-8", "surrogateescape")
    source = tree.root / path
    if path in tree.removed or source.is_symlink() or not source.is_file():
        return None
    if not source.resolve().is_relative_to(tree.root.resolve()):
        raise PatchError(
            f"{path!r} leads out of the repository through a link: a patch may touch only the repository's own files"
        )
    return source.read_bytes()


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode("utf-8", "surrogateescape")


def _git_apply(folder: Path, text: str, *, without_context: bool) -> str:
    """Run `git apply` in a folder; the reason if it rejects the patch, else empty.

    Raises:
        OSError: it was killed from outside, or the disk is full: not caused by the patch.
    """
    # Outside any repository, and without the user's git configuration.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "HOME": str(folder.parent),
    }
    done = run_within(
        ["git", "apply", "--whitespace=nowarn", *(["--unidiff-zero"] if without_context else []), "-"],
        folder=folder,
        environment=environment,
        given=text.encode("utf-8", "surrogateescape"),
        cpu_seconds=CPU_SECONDS,
        memory_mb=MEMORY_MB,
    )
    errors = done.stderr.decode("utf-8", "replace")
    if not done.returncode:
        return ""
    if done.returncode == -signal.SIGXCPU:
        return f"git apply takes more than {CPU_SECONDS} s of CPU time: the patch is too large"
    if "ut of memory" in errors:
        return f"the files after it take more than {MEMORY_MB} MB"
    if os.strerror(errno.ENOSPC) in errors:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    reasons = errors.replace("error: ", "").strip().splitlines()
    if any(reason.startswith("No valid patches") for reason in reasons):
        return "its headers name files but change nothing: make it again, for example with `git diff`"
    return "; ".join(reasons[:3]) or "git apply failed"


def _files_in(folder: Path) -> dict[str, bytes]:
    contents = {}
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):  # a link to a folder is one of the folders
            path = Path(parent, name)
            if name in folders and not path.is_symlink():
                continue
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not path.is_file():
                raise PatchError(f"the patch makes {relative!r} a link: only plain files may be patched")
            contents[relative] = path.read_bytes()
    return contents
