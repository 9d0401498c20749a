"""A patch applied to a task's tree, and folders that hold exactly one tree for a worker."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from regrade.datasets.globs import is_protected
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.folders import _parents
from regrade.evaluators.execution.inline_tests import with_pristine_tests


@dataclass(frozen=True)
class Workspace:
    """A task's files with a patch applied."""

    before: Tree
    after: Tree
    ignored: tuple[str, ...] = ()
    """Files of the patch that were left as they are in the pristine tree, because they decide the verdict."""


def prepare(task: Task, patch: Patch) -> Workspace:
    """Apply the patch to the task's base, strictly, and take protected files from the pristine tree.

    Raises:
        PatchError: the patch does not apply; says why.
    """
    files = _applied(task.base, patch)
    ignored = tuple(sorted(path for path in files if is_protected(path, task.suite.protected)))
    kept = {path: text for path, text in files.items() if path not in ignored}
    if task.suite.runner == "cargo":
        for path, text in kept.items():
            if path.endswith(".rs") and text is not None:
                kept[path] = with_pristine_tests(_text(_content(task.base, path)), text)
    after = task.base.with_files({path: text for path, text in kept.items() if text is not None})
    after = after.without(path for path, text in kept.items() if text is None)
    return Workspace(task.base, after, ignored)


def _applied(base: Tree, patch: Patch) -> dict[str, str | None]:
    """Path -> text after the patch (None: deleted) of the files that it changes, by `git apply` in an empty folder."""
    if patch.is_empty:
        return {}
    touched = {path for file in patch.files for path in (file.path, file.old_path) if path}
    for path in touched:
        if path not in base.replaced and (base.root / path).is_symlink():
            raise PatchError(f"{path!r} is a link in the repository: only plain files may be patched")
    with tempfile.TemporaryDirectory(prefix="regrade-apply-") as name:
        folder = Path(name, "tree")
        folder.mkdir()
        before: dict[str, bytes] = {}
        for path in touched:
            content = _content(base, path)
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
        _check_free(base, path, gone={name for name, text in changed.items() if text is None})
    return changed


def _check_readable(patch: Patch, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    """A change of text must come as lines: what a binary patch does can neither be read nor be judged."""
    for file in patch.files:
        old, new = before.get(file.old_path or file.path), after.get(file.path)
        if file.added or file.removed or old == new or not (old or new):
            continue
        if file.is_deleted or not any(b"\0" in (content or b"") for content in (old, new)):
            raise PatchError(
                f"{file.path!r} is text and comes as a binary patch, which nobody can read: use `git diff --text`"
            )


def _check_free(base: Tree, path: str, gone: set[str]) -> None:
    """A created file must stand where no file or folder is. `git apply` sees only the files that the patch names."""
    if _content(base, path) is not None:
        raise PatchError(f"the patch creates {path!r}, which exists: make the patch against the task's base")
    if (base.root / path).is_dir() or any(name.startswith(f"{path}/") for name in base.replaced):
        raise PatchError(f"the patch creates the file {path!r}, and there is a folder of that name")
    for parent in _parents(path):
        if parent not in gone and _content(base, parent) is not None:
            raise PatchError(f"the patch creates {path!r}, and {parent!r} is a file, not a folder")


def _content(base: Tree, path: str) -> bytes | None:
    if path in base.replaced:
        return base.replaced[path].encode("utf-8", "surrogateescape")
    source = base.root / path
    if path in base.removed or source.is_symlink() or not source.is_file():
        return None
    if not source.resolve().is_relative_to(base.root.resolve()):
        raise PatchError(
            f"{path!r} leads out of the repository through a link: a patch may touch only the repository's own files"
        )
    return source.read_bytes()


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode("utf-8", "surrogateescape")


def _git_apply(folder: Path, patch: Patch) -> None:
    # Without a repository around it and without any configuration of the user's.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "HOME": str(folder.parent),
    }
    try:
        done = subprocess.run(
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
    if done.returncode:
        reasons = done.stderr.decode("utf-8", "replace").replace("error: ", "").strip().splitlines()
        raise PatchError(f"the patch does not apply to the task's base: {'; '.join(reasons[:3]) or 'git apply failed'}")


def _files_in(folder: Path) -> dict[str, bytes]:
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not path.is_file():
                raise PatchError(f"the patch makes {relative!r} a link: only plain files may be patched")
            found[relative] = path.read_bytes()
    return found
