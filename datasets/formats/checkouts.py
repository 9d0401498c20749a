"""Base trees of tasks that name a repository and a commit: exported from the user's clones, without history."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from regrade.datasets.caches import default_cache, usable
from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import converted
from regrade.datasets.json_text import parse_json, read_text, shown
from regrade.datasets.mining.git_history import GitHistory, clone, is_clone
from regrade.datasets.mining.repositories import REPOSITORIES

COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """The files of a repository at a commit."""

    repository: str
    """`owner/name`."""
    commit: str
    """Its id, or the first 7 or more characters of it."""
    is_parent: bool = False
    """Is it the commit before that one?"""


class Clones:
    """The user's clones: a folder, or a JSON file `{"owner/name": URL or folder}` of repositories to clone."""

    def __init__(self, source: Path, cache: Path | None = None, advice: str = "") -> None:
        """
        Args:
            cache: of the exported trees; None: the default.
            advice: the remedy if there is no clone.

        Raises:
            UserError: the source is a file, and no such JSON.
        """
        self._source = source
        self._cache = default_cache() if cache is None else cache
        self._advice = advice or f"clone it into {source / 'OWNER__NAME'}"
        self._urls: dict[str, str] = {}
        if source.is_file():
            self._urls = converted(parse_json(read_text(source), str(source)), dict[str, str], str(source))
        self._trees: dict[Checkout, Path] = {}

    def export(self, checkout: Checkout, where: str) -> Path:
        """The folder with the files of a checkout, in the cache. It never changes.

        Raises:
            UserError: there is no clone, or it lacks the commit; with `where`.
        """
        if checkout not in self._trees:
            self._trees[checkout] = self._exported(checkout, where)
        return self._trees[checkout]

    def _exported(self, checkout: Checkout, where: str) -> Path:
        if not COMMIT.fullmatch(checkout.commit):
            raise UserError(f"{where}: the base commit is {shown(checkout.commit)}: set the hexadecimal id of a commit")
        history = self._history(checkout.repository, where)
        sha = history.resolved(f"{checkout.commit}^" if checkout.is_parent else checkout.commit)
        if sha is None:
            kind = "the commit before" if checkout.is_parent else "the commit"
            raise UserError(
                f"{where}: the clone {history.folder} lacks {kind} {checkout.commit}: fetch it (a shallow clone has "
                "few commits)"
            )
        root = usable(self._cache / REPOSITORIES) / f"{checkout.repository.replace('/', '__')}-{sha[:16]}"
        if not root.is_dir():
            history.export(sha, root)
        return root

    def _history(self, repository: str, where: str) -> GitHistory:
        if url := self._urls.get(repository):
            key = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
            return clone(url, self._cache / "clones" / f"{repository.replace('/', '__')}-{key}.git")
        if not self._source.is_dir():
            problem = f"{self._source} names no URL for it" if self._urls else f"there is no folder {self._source}"
            raise UserError(f"{where}: no clone of {repository!r}: {problem}; {self._advice}")
        for folder in self._candidates(repository):
            for git in (folder, folder / ".git"):
                if is_clone(git):
                    return GitHistory(git, "HEAD", remedy="the clone is damaged, so clone that repository again")
        raise UserError(f"{where}: no clone of {repository!r} in {self._source}: {self._advice}")

    def _candidates(self, repository: str) -> Iterator[Path]:
        for name in (repository.replace("/", "__"), repository, repository.rpartition("/")[2]):
            if ".." not in Path(name).parts and not Path(name).is_absolute():
                yield self._source / name
                yield self._source / f"{name}.git"
