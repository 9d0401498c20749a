"""Applying a patch to a tree, with `git apply`, strictly, and only to plain text files."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from regrade.datasets.patch_forms import PlainDiff, is_cache
from regrade.datasets.patches import Patch, PatchedFile, PatchError, parsed_files
from regrade.datasets.process_identity import this_process
from regrade.datasets.tasks import Tree

DOES_NOT_APPLY = "the patch does not apply to the task's base: "
"""Prefix of a PatchError's message if git rejects the patch."""


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
    """The patch as the plain diff that `git apply` gets for this tree: with its names, and its CR or none.

    Raises:
        PatchError, OSError: see `apply_patch`.
    """
    return Patch(_applied(_Application(tree, patch)).text)


@dataclass(frozen=True)
class Applied:
    """What a patch does to one tree."""

    files: Mapping[str, str | None]
    """See `changed_files`."""
    text: str
    """See `as_applied`."""


@dataclass(frozen=True, eq=False)
class _Application:
    """A patch on one tree, as a cache key."""

    tree: Tree
    patch: Patch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Application) and self.tree is other.tree and self.patch == other.patch

    def __hash__(self) -> int:
        return hash((id(self.tree), self.patch.text))


@lru_cache(maxsize=32)
def _applied(application: _Application) -> Applied:
    """Every probe of one patch asks for it."""
    tree, patch = application.tree, application.patch
    if not patch.plain.text:
        return Applied({}, "")
    plain = _with_existing_names(tree, patch)
    files = parsed_files(plain)
    before: dict[str, bytes] = {}
    for path in {path for file in files for path in (file.path, file.old_path) if path}:
        if path not in tree.replaced and (tree.root / path).is_symlink():
            raise PatchError(f"{path!r} is a link in the repository: only plain files may be patched")
        content = _content(tree, path)
        if content is not None:
            before[path] = content
    after, text = _after(before, plain, files)
    changed = {
        path: _text(after.get(path)) for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    }
    _check_readable(files, before, after)
    for path in changed.keys() - before.keys():
        _check_free(tree, path, gone={name for name, text in changed.items() if text is None})
    return Applied({path: content for path, content in changed.items() if not is_cache(path)}, text)


def _with_existing_names(tree: Tree, patch: Patch) -> PlainDiff:
    """The plain diff with the prefixes that lead to files of the tree, if those that the names seem to have do not."""
    if _has_old_files(tree, patch.files):
        return patch.plain
    for level in (0, 1):
        with contextlib.suppress(PatchError):
            other = patch.read(level)
            if _has_old_files(tree, parsed_files(other)):
                return other
    return patch.plain


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


def _after(before: Mapping[str, bytes], plain: PlainDiff, files: Sequence[PatchedFile]) -> tuple[dict[str, bytes], str]:
    """The files after `git apply`, in the first of the patch's possible readings that applies; and this reading."""
    readings = [(plain.text, False)]
    if plain.text_with_cr != plain.text:
        readings.append((plain.text_with_cr, False))
    if not plain.has_context and _is_exact(before, files):
        readings.append((plain.text, True))
    reasons = []
    for text, without_context in readings:
        # The scratch folder of a killed process: the next scorer removes it, by its name.
        with tempfile.TemporaryDirectory(prefix=f"regrade-{this_process()}-apply-") as name:
            folder = Path(name, "tree")
            folder.mkdir()
            for path, content in before.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
            reason = _git_apply(folder, text, without_context=without_context)
            if not reason:
                return _files_in(folder), text
            reasons.append(reason)
    advice = _advice(before, plain) if "patch failed" in reasons[0] else ""
    raise PatchError(f"{DOES_NOT_APPLY}{reasons[0]}{advice}")


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


def _check_readable(files: Sequence[PatchedFile], before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    """A change of text must consist of lines: nobody can review a binary patch."""
    for file in files:
        old, new = before.get(file.old_path or file.path), after.get(file.path)
        if file.added or file.removed or old == new or not (old or new):
            continue
        if file.is_deleted or not any(b"\0" in (content or b"") for content in (old, new)):
            raise PatchError(f"{file.path!r} is a text file in a binary patch: use `git diff --text`")


def _check_free(tree: Tree, path: str, gone: set[str]) -> None:
    """No file or folder may exist at the path of a created file. `git apply` sees only the files that a patch names."""
    if _content(tree, path) is not None:
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
    """Run `git apply` in a folder; the reason if it rejects the patch, else empty."""
    # Outside any repository, and without the user's git configuration.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "HOME": str(folder.parent),
    }
    try:
        process = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", *(["--unidiff-zero"] if without_context else []), "-"],
            cwd=folder,
            env=environment,
            input=text.encode("utf-8", "surrogateescape"),
            capture_output=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PatchError("git apply did not end within 60 s: the patch is too large") from error
    if not process.returncode:
        return ""
    reasons = process.stderr.decode("utf-8", "replace").replace("error: ", "").strip().splitlines()
    if os.strerror(errno.ENOSPC) in "".join(reasons):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if any(reason.startswith("No valid patches") for reason in reasons):
        return "its headers name files but change nothing: make it again, for example with `git diff`"
    return "; ".join(reasons[:3]) or "git apply failed"


def _files_in(folder: Path) -> dict[str, bytes]:
    contents = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not path.is_file():
                raise PatchError(f"the patch makes {relative!r} a link: only plain files may be patched")
            contents[relative] = path.read_bytes()
    return contents
