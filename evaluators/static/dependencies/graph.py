"""The graph of imports and name references between the source files of a tree.

An edge connects a symbol of one file with a name of another that it uses. The edges that leave a file depend only on
its text and on the names of the modules, so that a patch changes only the edges of its own files. Queries of the graph
follow aliases (`from .core import f` in an `__init__.py`).
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

from regrade.datasets.tasks import Tree
from regrade.evaluators.static.dependencies.facts import MODULE, Facts, facts
from regrade.evaluators.static.dependencies.modules import WHOLE, Modules
from regrade.evaluators.static.files import LARGEST, TreeKey, read
from regrade.evaluators.static.languages import MANIFESTS, Language, language_of

STAR_IMPORT = re.compile(r"import\s*\*|export\s*\*|::\s*\*|\.\s*\*\s*;|\*\s*}|^[^\S\n]*\.\s+\"", re.MULTILINE)
"""Matches in every file with a star import, in any language, and in some without."""
RELATIVE_IMPORT = re.compile(r"from\s*\.+\s*import")
Symbol = tuple[str, str]
"""(path of the file, qualified name in it), or (key of the package, name shared by its files)"""


@dataclass(frozen=True)
class Links:
    """The edges that leave one file."""

    uses: tuple[tuple[str, Symbol], ...]
    """(symbol of this file, used symbol)"""
    aliases: tuple[tuple[str, Symbol], ...]
    """(name that an import binds here, imported symbol)"""
    stars: tuple[str, ...]
    """Files whose public names this one imports with `*` and exports again."""
    imports: Mapping[str, bool]
    """Imported file -> is it imported only when a function runs?"""


class Layer:
    """The reversed edges of some files: from a used name to its users.

    A query for a name parses only the files whose text contains it, since no other file can have an edge to it: the
    first query of a large project does not parse all of its files. Safe for several threads.
    """

    def __init__(self, texts: Mapping[str, str], modules: Modules, paths: Collection[str]) -> None:
        self.users: defaultdict[Symbol, list[Symbol]] = defaultdict(list)
        self.aliased: defaultdict[Symbol, list[Symbol]] = defaultdict(list)
        self.starred: defaultdict[str, list[str]] = defaultdict(list)
        self.importers: defaultdict[str, list[str]] = defaultdict(list)
        self.attribute_users: defaultdict[str, list[Symbol]] = defaultdict(list)
        self.definitions: defaultdict[str, int] = defaultdict(int)
        self._modules = modules
        self._texts = {path: texts[path] for path in sorted(paths)}
        self._unread = list(self._texts)
        self._mentions: dict[str, set[str]] = {}
        self._answered: set[str] = set()
        self._reading = threading.RLock()

    def with_word(self, word: str) -> Layer:
        """This layer, after reading every file whose text contains the word."""
        return self._read_where(f"word {word}", self._texts, lambda text: word in text)

    def with_files(self, paths: Collection[str]) -> Layer:
        """This layer, after reading these files."""
        return self._read_where(f"files {sorted(paths)}", paths, lambda _: True)

    def with_stars(self) -> Layer:
        """This layer, after reading every file with a star import."""
        return self._read_where("stars", self._texts, lambda text: STAR_IMPORT.search(text) is not None)

    def with_importers(self, path: str) -> Layer:
        """This layer, after reading every file that may import the module."""
        return self._read_where(f"module {path}", self._files_mentioning(path), lambda _: True)

    def with_users(self, path: str, name: str) -> Layer:
        """This layer, after reading every file that mentions the module and the name, so that it may use it."""
        return self._read_where(f"symbol {path} {name}", self._files_mentioning(path), lambda text: name in text)

    def _files_mentioning(self, path: str) -> Collection[str]:
        """The module itself and the files whose text may mention it."""
        pure = PurePosixPath(path)
        if pure.suffix != ".py":
            return self._texts.keys()
        if path not in self._mentions:
            is_package = pure.stem == "__init__"  # imported by its folder's name, or by dots alone
            word = pure.parent.name if is_package else pure.stem
            self._mentions[path] = {path} | {
                file
                for file, text in self._texts.items()
                if word in text or (is_package and RELATIVE_IMPORT.search(text) is not None)
            }
        return self._mentions[path]

    def _read_where(self, query: str, paths: Collection[str], matches: Callable[[str], bool]) -> Layer:
        if query not in self._answered:
            with self._reading:
                for path in [path for path in self._unread if path in paths and matches(self._texts[path])]:
                    self._unread.remove(path)
                    self._add(path, self._texts[path])
                self._answered.add(query)
        return self

    def _add(self, path: str, text: str) -> None:
        links, file_facts = _links(path, text, self._modules), facts(text, _language(path))
        for symbol, target in links.uses:
            self.users[target].append((path, symbol))
        for alias, target in links.aliases:
            self.aliased[target].append((path, alias))
        for starred in links.stars:
            self.starred[starred].append(path)
        for imported in links.imports:
            self.importers[imported].append(path)
        for symbol, attributes in file_facts.attributes.items():
            for attribute in attributes:
                self.attribute_users[attribute].append((path, symbol))
        for name in file_facts.texts:
            self.definitions[name.rpartition(".")[2]] += 1


@dataclass(frozen=True)
class Graph:
    """The files of a tree, and its edges before a patch, or before and after it."""

    texts: Mapping[str, str]
    """Path -> text of every readable source file."""
    manifests: Mapping[str, str]
    """Path -> text of the files that name packages, such as go.mod."""
    modules: Modules
    layers: tuple[Layer, ...]

    def facts(self, path: str) -> Facts:
        return facts(self.texts[path], _language(path))

    def links(self, path: str) -> Links:
        return _links(path, self.texts[path], self.modules)

    def users(self, symbol: Symbol) -> Iterator[Symbol]:
        """Symbols that use this one, by its own name or by an alias."""
        pending, seen = [symbol], {symbol}
        while pending:
            path, name = pending.pop()
            aliases = self._shared(path, name)
            for layer in self.layers:
                # Users of a module's default export name the module alone.
                first = name.partition(".")[0]
                (layer.with_importers(path) if name == "default" else layer.with_users(path, first)).with_stars()
                yield from layer.users.get((path, name), ())
                aliases.extend(layer.aliased.get((path, name), ()))
                if not name.startswith("_"):
                    stars = layer.starred.get(path, ())
                    yield from ((star, MODULE) for star in stars)
                    aliases.extend((star, name) for star in stars)
            pending.extend(alias for alias in aliases if alias not in seen)
            seen.update(aliases)

    def _shared(self, path: str, name: str) -> list[Symbol]:
        """The symbol as a name of its package, in the languages whose packages share names between files."""
        package = self.modules.packages.get(path)
        return [(package, name)] if package is not None and name != MODULE else []

    def importers(self, path: str) -> Iterator[str]:
        for layer in self.layers:
            importers = layer.with_importers(path).importers
            yield from importers.get(path, ())
            if path in self.modules.packages:
                yield from importers.get(self.modules.packages[path], ())

    def attribute_users(self, name: str, paths: Collection[str] | None = None) -> Iterator[Symbol]:
        """Symbols that use an attribute of this name, of any object, in all files or in those of `paths`."""
        for layer in self.layers:
            if paths is None:
                yield from layer.with_word(name).attribute_users.get(name, ())
            else:
                layer.with_files(paths)
                yield from (user for user in layer.attribute_users.get(name, ()) if user[0] in paths)

    def definitions(self, name: str) -> int:
        """The number of the tree's symbols with this name."""
        return self.layers[0].with_word(name).definitions.get(name, 0)

    def patched(self, files: Mapping[str, str | None], python_path: tuple[str, ...]) -> Graph:
        """The union of this graph and that of the patched tree; `files`: changed path -> text, None if deleted."""
        texts = {path: text for path, text in {**self.texts, **files}.items() if text is not None}
        changed = {path for path in files if path in texts}
        modules = self.modules
        if texts.keys() != self.texts.keys():  # a name may now resolve to another file, in any file
            modules, changed = Modules.of(texts, self.manifests, python_path), set(texts)
        return Graph(texts, self.manifests, modules, (*self.layers, Layer(texts, modules, changed)))


def graph_of(tree: Tree, python_path: tuple[str, ...]) -> Graph:
    """The graph of a tree; the latest ones are cached by content."""
    return _graph(TreeKey(tree.digest, tree), python_path)


@lru_cache(maxsize=16)
def _graph(key: TreeKey, python_path: tuple[str, ...]) -> Graph:
    texts: dict[str, str] = {}
    manifests: dict[str, str] = {}
    for path in key.tree.paths():
        is_manifest = PurePosixPath(path).name in MANIFESTS
        text = read(key.tree, path) if is_manifest or language_of(path) is not None else None
        if text is not None and len(text) <= LARGEST:
            (manifests if is_manifest else texts)[path] = text
    modules = Modules.of(texts, manifests, python_path)
    return Graph(texts, manifests, modules, (Layer(texts, modules, texts),))


def _language(path: str) -> Language:
    language = language_of(path)
    assert language is not None  # other files are not in the graph
    return language


@lru_cache(maxsize=1024)
def _links(path: str, text: str, modules: Modules) -> Links:
    file_facts = facts(text, _language(path))
    uses: dict[tuple[str, Symbol], None] = {}
    aliases: list[tuple[str, Symbol]] = [(alias, (path, symbol)) for alias, symbol in file_facts.aliases]
    stars: list[str] = []
    imports: dict[str, bool] = {}
    bindings: dict[str, str] = {}
    for item in file_facts.imports:
        target = modules.resolve(modules.absolute(item.dotted, path))
        if item.alias not in ("", "*"):
            bindings[item.alias] = modules.absolute(item.bound, path)
        if target is None or target[0] == path:
            continue
        imports[target[0]] = item.is_lazy and imports.get(target[0], True)
        uses[MODULE, target] = None
        if item.alias == "*":
            stars.append(target[0])
        elif not item.is_module:
            aliases.append((item.alias, target))
    uses.update(dict.fromkeys(_references(path, file_facts, bindings, stars, modules)))
    # An importer of a package sees the names that its files share, and does not export them again.
    exported_stars = tuple(star for star in stars if not star.endswith("/"))
    return Links(tuple(uses), tuple(aliases), exported_stars, imports)


def _references(
    path: str, file_facts: Facts, bindings: Mapping[str, str], stars: list[str], modules: Modules
) -> Iterator[tuple[str, Symbol]]:
    """(symbol of the file, symbol that it uses), by name and by dotted name."""
    language = _language(path)
    package = modules.packages.get(path)
    scopes = [*stars, *([package] if package is not None else [])]
    for symbol, names in file_facts.names.items():
        own = symbol.partition(".")[0]
        for name in names:
            if name in bindings:
                target = modules.resolve(bindings[name])
                if target is not None and target[1] != WHOLE:
                    yield symbol, target
                elif target is not None and language.has_default:
                    yield symbol, (target[0], "default")
            elif name in file_facts.texts:
                if name != own:
                    yield symbol, (path, name)
            else:
                yield from ((symbol, (scope, name)) for scope in scopes)
    for symbol, chains in file_facts.chains.items():
        for chain in chains:
            first, _, rest = chain.partition(".")
            if first in bindings:
                target = modules.resolve(f"{bindings[first]}.{rest}")
            else:
                is_rooted = language.is_rooted_anywhere or first in language.rooted
                target = modules.resolve(modules.absolute(chain, path)) if is_rooted else None
            if target is not None and target[1] != WHOLE:
                yield symbol, target
