"""Applying a patch to a tree, with `git apply`, strictly, and only to plain text files."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from regrade.datasets.patches import Patch, PatchError
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


def changed_files(tree: Tree, patch: Patch) -> dict[str, str | None]:
    """Path -> text after the patch (None: deleted) of each file whose content it changes.

    `git apply` runs in a folder of only the files that the patch names.

    Raises:
        PatchError, OSError: see `apply_patch`.
    """
    if patch.is_empty:
        return {}
    patched = {path for file in patch.files for path in (file.path, file.old_path) if path}
    for path in patched:
        if path not in tree.replaced and (tree.root / path).is_symlink():
            raise PatchError(f"{path!r} is a link in the repository: only plain files may be patched")
    with tempfile.TemporaryDirectory(prefix="regrade-apply-") as name:
        folder = Path(name, "tree")
        folder.mkdir()
        before: dict[str, bytes] = {}
        for path in patched:
            content = _content(tree, path)
            if content is not None:
                before[path] = content
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
        _git_apply(folder, patch)
        after = _files_in(folder)
    changed = {
        path: _text(after.get(path)) for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    }
    _check_readable(patch, before, after)
    for path in changed.keys() - before.keys():
        _check_free(tree, path, gone={name for name, text in changed.items() if text is None})
    return changed


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


def _check_readable(patch: Patch, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    """A change of text must consist of lines: nobody can review a binary patch."""
    for file in patch.files:
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


def _git_apply(folder: Path, patch: Patch) -> None:
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
            ["git", "apply", "--whitespace=nowarn", f"-p{int(patch.has_prefixes)}", "-"],
            cwd=folder,
            env=environment,
            input=patch.text.encode("utf-8", "surrogateescape"),
            capture_output=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PatchError("git apply did not end within 60 s: the patch is too large") from error
    if process.returncode:
        reasons = process.stderr.decode("utf-8", "replace").replace("error: ", "").strip().splitlines()
        raise PatchError(f"{DOES_NOT_APPLY}{'; '.join(reasons[:3]) or 'git apply failed'}")


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
