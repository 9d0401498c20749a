"""Opens a repository: a folder, a git URL or local clone, an archive, or the name of a released package.

Its files are copied once into the cache, so that nothing changes under a task; version control, virtual environments
and caches are left out.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from regrade.datasets.errors import UserError
from regrade.datasets.mining.git_history import GitHistory, appear, clone, is_clone, remote_head, tracked_files
from regrade.datasets.mutation.packages import download_source, unpack
from regrade.datasets.tasks import Tree

URL = re.compile(r"(?:https?|ssh|git|file)://\S+|[\w.-]+@[\w.-]+:\S+")
ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
LARGEST_FILE_MB = 50
"""A larger file is left out: it is data, and every worker would copy it."""
MOST_FILES = 50_000
"""A folder with more files is no repository, or has its data in it."""
REPOSITORIES = "repositories"
"""Name of the folder in the cache."""


@dataclass(frozen=True, kw_only=True)
class Repository:
    """The files of a repository at one state, with its history if it has one."""

    name: str
    origin: str
    """As the user named it."""
    root: Path
    """A copy in the cache that never changes."""
    version: str
    """First characters of the commit; of a released package its version; empty: unknown."""
    history: GitHistory | None = None

    @property
    def tree(self) -> Tree:
        return Tree(self.root)

    def with_files(self, files: Mapping[str, bytes], cache: Path) -> Repository:
        """The repository with further files, such as those that its build generates; none is overwritten, and none
        is written through a link of the repository, which may lead out of it."""
        new = {path: content for path, content in files.items() if _is_free(self.root, path)}
        if not new:
            return self
        marks = "".join(f"{path} {hashlib.sha256(content).hexdigest()}\n" for path, content in sorted(new.items()))
        key = hashlib.sha256(f"{self.tree.digest}\n{marks}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
        root = cache / REPOSITORIES / f"{self.name}-{key}"
        if not root.is_dir():
            with tempfile.TemporaryDirectory(dir=root.parent, prefix=".copy-") as folder:
                copy = Path(folder, "files")
                shutil.copytree(self.root, copy, symlinks=True)
                for path, content in new.items():
                    (copy / path).parent.mkdir(parents=True, exist_ok=True)
                    (copy / path).write_bytes(content)
                appear(copy, root)
        return replace(self, root=root)


def open_repository(source: str, cache: Path, tell: Callable[[str], None] = lambda _: None) -> Repository:
    """The repository that a source names, copied into the cache.

    Args:
        source: a folder, a bare clone, an archive (`.tar.gz`, `.zip`), a git URL, or a package such as `NAME` or
            `NAME==VERSION`, whose source distribution pip downloads.
        tell: called with notes, such as a file that is left out.

    Raises:
        UserError: nothing has that name, it contains no file, or it can't be copied; with the reason.
    """
    path = Path(source).expanduser()
    if URL.fullmatch(source):
        return _cloned(source, source, _name_of(source), cache)
    if path.is_dir():
        return _from_folder(path.resolve(), source, cache, tell)
    if path.is_file():
        return _from_archive(path.resolve(), source, cache, tell)
    return _from_package(source, cache, tell)


def _from_folder(folder: Path, source: str, cache: Path, tell: Callable[[str], None]) -> Repository:
    if is_clone(folder):
        name = folder.name if folder.name != ".git" else folder.parent.name
        return _cloned(str(folder), source, _name_of(name), cache)
    name = _plain_name(folder.name)
    listed = tracked_files(folder)
    repository = _copied(Tree(folder), listed, name, source, cache, tell)
    if listed is None:
        return repository
    try:
        history = _history(str(folder), name, cache)
    except UserError as error:
        tell(f"its history is not used: {error}")
        return repository
    return replace(repository, history=history, version=history.head[:12])


def _cloned(url: str, source: str, name: str, cache: Path) -> Repository:
    history = _history(url, name, cache)
    root = cache / REPOSITORIES / f"{name}-{history.head[:16]}"
    if not root.is_dir():
        history.export(history.head, root)
    _check(root, source)
    return Repository(name=name, origin=source, root=root, version=history.head[:12], history=history)


def _history(url: str, name: str, cache: Path) -> GitHistory:
    """Cloned again once the default branch has another commit."""
    head = remote_head(url)
    key = hashlib.sha256(f"{url}@{head}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return clone(url, cache / "clones" / f"{name}-{key}.git")


def _from_archive(
    archive: Path, source: str, cache: Path, tell: Callable[[str], None], version: str = ""
) -> Repository:
    if not archive.name.endswith(ARCHIVES):
        raise UserError(
            f"{source} is a file, and no archive ({', '.join(ARCHIVES)}): pass the folder of a repository, a git "
            "URL, or the name of a package"
        )
    (cache / REPOSITORIES).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache / REPOSITORIES, prefix=".unpack-") as name:
        folder = Path(name, "unpacked")
        root = _unzip(archive, folder) if archive.name.endswith(".zip") else unpack(archive, folder)
        packed = _npm_package(root)
        name = packed.get("name", _stem(root.name))
        repository = _copied(Tree(root), None, _plain_name(name), source, cache, tell)
    return replace(repository, version=version or packed.get("version", ""))


def _npm_package(root: Path) -> Mapping[str, str]:
    """Name and version of what `npm pack` wrote, whose folder is always called `package`; empty for others."""
    if root.name != "package":
        return {}
    try:
        manifest = json.loads((root / "package.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    found = {key: manifest.get(key) for key in ("name", "version")} if isinstance(manifest, dict) else {}
    return {key: value for key, value in found.items() if isinstance(value, str) and value}


def _unzip(archive: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [Path(name) for name in opened.namelist()]
            if any(name.is_absolute() or ".." in name.parts for name in names):
                raise UserError(f"{archive.name} contains a path that leaves its folder: it is no source archive")
            opened.extractall(folder)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, zlib.error) as error:  # RuntimeError: encrypted
        raise UserError(f"cannot unpack {archive.name}: {error}; no file of it was stored") from error
    roots = list(folder.iterdir())
    return roots[0] if len(roots) == 1 and roots[0].is_dir() else folder


def _from_package(source: str, cache: Path, tell: Callable[[str], None]) -> Repository:
    try:
        requirement = Requirement(source)
    except InvalidRequirement:
        requirement = None
    if requirement is None or requirement.url or "/" in source:
        raise UserError(
            f"no repository {source!r}: pass an existing folder or archive, a git URL, or a package such as "
            "'NAME==VERSION'"
        )
    (cache / REPOSITORIES).mkdir(parents=True, exist_ok=True)
    pinned = next((each.version for each in requirement.specifier if each.operator == "=="), "")
    mark = cache / REPOSITORIES / f"{_plain_name(requirement.name)}=={pinned}"
    named = mark.read_text("utf-8").strip() if pinned and mark.is_file() else ""
    if named and (root := cache / REPOSITORIES / named).is_dir():  # a killed command may have left an empty mark
        return Repository(name=_plain_name(requirement.name), origin=source, root=root, version=pinned)
    with tempfile.TemporaryDirectory(dir=cache / REPOSITORIES, prefix=".download-") as name:
        archive = download_source(source, requirement.name, Path(name))
        version = _version(archive.name)
        repository = _from_archive(archive, source, cache, tell, version)
    repository = replace(repository, name=_plain_name(requirement.name))
    if pinned:
        mark.write_text(repository.root.name, "utf-8")
    return repository


def _copied(
    tree: Tree, listed: list[str] | None, name: str, source: str, cache: Path, tell: Callable[[str], None]
) -> Repository:
    """A copy of the plain files of a folder, without large ones."""
    paths = set(tree.paths())
    if listed is not None:
        paths &= set(listed)
    if len(paths) > MOST_FILES:
        raise UserError(
            f"{source} has {len(paths):,} files (the limit is {MOST_FILES:,}): pass the folder of one repository"
        )
    large = sorted(path for path in paths if (tree.root / path).stat().st_size > LARGEST_FILE_MB << 20)
    for path in large:
        tell(f"{path} is larger than {LARGEST_FILE_MB} MB and is left out")
    paths -= set(large)
    if links := [path for path in tree.links() if listed is None or path in listed]:
        tell(
            f"{links[0]} and {len(links) - 1} more are links, which are left out"
            if links[1:]
            else f"{links[0]} is a link, and left out"
        )
    marks = []
    (cache / REPOSITORIES).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache / REPOSITORIES, prefix=".copy-") as folder:
        copy = Path(folder, "files")
        copy.mkdir()
        for path in sorted(paths):
            try:
                content, mode = (tree.root / path).read_bytes(), (tree.root / path).stat().st_mode
            except OSError as error:
                raise UserError(f"{source}: {path} can't be read ({error.strerror}): fix its permissions") from error
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            (copy / path).write_bytes(content)
            (copy / path).chmod(0o755 if mode & stat.S_IXUSR else 0o644)
            marks.append(f"{path} {bool(mode & stat.S_IXUSR)} {hashlib.sha256(content).hexdigest()}")
        _check(copy, source)
        key = hashlib.sha256("\n".join(marks).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        root = cache / REPOSITORIES / f"{name}-{key}"
        appear(copy, root)
    return Repository(name=name, origin=source, root=root, version="")


def _is_free(root: Path, path: str) -> bool:
    """Can a new file have that path, below folders alone?"""
    parents = [root / each for each in Path(path).parents if each.parts]
    below_folders = all(each.is_dir() or not each.exists() for each in parents)
    linked = any(each.is_symlink() for each in (root / path, *parents))
    return below_folders and not linked and not (root / path).exists()


def _check(root: Path, source: str) -> None:
    if not any(path.is_file() for path in root.rglob("*")):
        raise UserError(f"{source} contains no file: pass the folder of a repository")


def _name_of(url: str) -> str:
    return _plain_name(url.rstrip("/").rpartition("/")[2].rpartition(":")[2].removesuffix(".git"))


def _plain_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "repository"


def _stem(name: str) -> str:
    """`shop` of `shop-1.2`."""
    return re.sub(r"-\d[\w.+!]*$", "", name)


def _version(archive: str) -> str:
    for suffix in ARCHIVES:
        archive = archive.removesuffix(suffix)
    return archive.rpartition("-")[2]
