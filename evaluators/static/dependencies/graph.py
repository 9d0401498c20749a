"""The graph of imports and name references between the source files of a tree.

An edge says that a symbol of one file uses a name of another. The edges that leave a file depend on its text and on
the names of the modules alone, so that after a patch only the patched files are linked anew. Aliases (`from .core
import f` in an `__init__.py`) are followed when the graph is asked.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath

from regrade.datasets.tasks import Tree
from regrade.evaluators.static.dependencies.facts import MODULE, Facts, facts
from regrade.evaluators.static.dependencies.modules import WHOLE, Modules
from regrade.evaluators.static.files import LARGEST, read
from regrade.evaluators.static.languages import MANIFESTS, Language, language_of

STAR_IMPORT = re.compile(r"import\s*\*|export\s*\*|::\s*\*|\.\s*\*\s*;|\*\s*}|^\s*\.\s+\"", re.MULTILINE)
"""Finds every file that imports all the names of another, in any language, and some that do not."""
RELATIVE_IMPORT = re.compile(r"from\s*\.+\s*import")
Symbol = tuple[str, str]
"""(path of the file, qualified name in it), or (key of the package, name that its files share)"""


@dataclass(frozen=True)
class Links:
    """The edges that leave one file."""

    uses: tuple[tuple[str, Symbol], ...]
    """(symbol of this file, what it uses)"""
    aliases: tuple[tuple[str, Symbol], ...]
    """(name that an import binds here, what it stands for)"""
    stars: tuple[str, ...]
    """Files whose public names are imported with `*`."""
    imports: Mapping[str, bool]
    """File that is imported -> only when a function runs?"""


class Layer:
    """The edges of some files, turned round: from what is used to its users.

    A file is read when something asks for a name that its text holds: an edge to a name can only come from there. So
    the first question about a large project does not wait until all of it is parsed. May be asked by several threads.
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
        self._namings: dict[str, set[str]] = {}
        self._asked: set[str] = set()
        self._reading = threading.RLock()

    def about(self, word: str) -> Layer:
        """This layer, with every file read whose text holds the word."""
        return self._read_where(f"word {word}", self._texts, lambda text: word in text)

    def with_files(self, paths: Collection[str]) -> Layer:
        """This layer, with these files read."""
        return self._read_where(f"files {sorted(paths)}", paths, lambda _: True)

    def with_stars(self) -> Layer:
        """This layer, with every file read that imports all the names of another."""
        return self._read_where("stars", self._texts, lambda text: STAR_IMPORT.search(text) is not None)

    def about_module(self, path: str) -> Layer:
        """This layer, with every file read that may import the module."""
        return self._read_where(f"module {path}", self._naming(path), lambda _: True)

    def about_symbol(self, path: str, name: str) -> Layer:
        """This layer, with every file read that may use a name of the module: it has to name both."""
        return self._read_where(f"symbol {path} {name}", self._naming(path), lambda text: name in text)

    def _naming(self, path: str) -> Collection[str]:
        """The module itself and the files whose text may name it."""
        pure = PurePosixPath(path)
        if pure.suffix != ".py":
            return self._texts.keys()
        if path not in self._namings:
            is_package = pure.stem == "__init__"  # named by its folder, or by dots alone
            word = pure.parent.name if is_package else pure.stem
            self._namings[path] = {path} | {
                other
                for other, text in self._texts.items()
                if word in text or (is_package and RELATIVE_IMPORT.search(text) is not None)
            }
        return self._namings[path]

    def _read_where(self, question: str, among: Collection[str], holds: Callable[[str], bool]) -> Layer:
        if question not in self._asked:
            with self._reading:
                for path in [path for path in self._unread if path in among and holds(self._texts[path])]:
                    self._unread.remove(path)
                    self._add(path, self._texts[path])
                self._asked.add(question)
        return self

    def _add(self, path: str, text: str) -> None:
        links, known = _links(path, text, self._modules), facts(text, _language(path))
        for symbol, target in links.uses:
            self.users[target].append((path, symbol))
        for alias, target in links.aliases:
            self.aliased[target].append((path, alias))
        for starred in links.stars:
            self.starred[starred].append(path)
        for imported in links.imports:
            self.importers[imported].append(path)
        for symbol, attributes in known.attributes.items():
            for attribute in attributes:
                self.attribute_users[attribute].append((path, symbol))
        for name in known.texts:
            self.definitions[name.rpartition(".")[2]] += 1


@dataclass(frozen=True)
class Graph:
    """The files of a tree, and the edges of one or two states of it."""

    texts: Mapping[str, str]
    """Path -> text of every source file that can be read."""
    manifests: Mapping[str, str]
    """Path -> text of the files that say what packages are called."""
    modules: Modules
    layers: tuple[Layer, ...]

    def facts(self, path: str) -> Facts:
        return facts(self.texts[path], _language(path))

    def links(self, path: str) -> Links:
        return _links(path, self.texts[path], self.modules)

    def users(self, symbol: Symbol) -> Iterator[Symbol]:
        """Symbols that use this one, by its own name or by another that stands for it."""
        waiting, seen = [symbol], {symbol}
        while waiting:
            path, name = waiting.pop()
            others = self._shared(path, name)
            for layer in self.layers:
                # What a module itself is used as is called by the module's name, not by its own.
                first = name.partition(".")[0]
                (layer.about_module(path) if name == "default" else layer.about_symbol(path, first)).with_stars()
                yield from layer.users.get((path, name), ())
                others.extend(layer.aliased.get((path, name), ()))
                if not name.startswith("_"):
                    stars = layer.starred.get(path, ())
                    yield from ((star, MODULE) for star in stars)
                    others.extend((star, name) for star in stars)
            waiting.extend(other for other in others if other not in seen)
            seen.update(others)

    def _shared(self, path: str, name: str) -> list[Symbol]:
        """The symbol as its package knows it, in the languages whose files share their names."""
        package = self.modules.packages.get(path)
        return [(package, name)] if package is not None and name != MODULE else []

    def importers(self, path: str) -> Iterator[str]:
        for layer in self.layers:
            known = layer.about_module(path)
            yield from known.importers.get(path, ())
            if path in self.modules.packages:
                yield from known.importers.get(self.modules.packages[path], ())

    def attribute_users(self, name: str, among: Collection[str] | None = None) -> Iterator[Symbol]:
        """Symbols that use an attribute of this name, of whatever object: everywhere, or in some files."""
        for layer in self.layers:
            if among is None:
                yield from layer.about(name).attribute_users.get(name, ())
            else:
                layer.with_files(among)
                yield from (user for user in layer.attribute_users.get(name, ()) if user[0] in among)

    def definitions(self, name: str) -> int:
        """How many symbols of the tree are called so."""
        return self.layers[0].about(name).definitions.get(name, 0)

    def patched(self, files: Mapping[str, str | None], python_path: tuple[str, ...]) -> Graph:
        """The union of this graph with that of the tree after `files` (path -> text, None: deleted) have changed."""
        texts = {path: text for path, text in {**self.texts, **files}.items() if text is not None}
        changed = {path for path in files if path in texts}
        modules = self.modules
        if texts.keys() != self.texts.keys():  # a name may now mean another file, wherever it is used
            modules, changed = Modules.of(texts, self.manifests, python_path), set(texts)
        return Graph(texts, self.manifests, modules, (*self.layers, Layer(texts, modules, changed)))


def graph_of(tree: Tree, python_path: tuple[str, ...]) -> Graph:
    """The graph of a tree; that of the trees asked for last is kept."""
    return _graph(_Contents(tree.digest, tree), python_path)


@dataclass(frozen=True)
class _Contents:
    """A tree that equals another where its content does."""

    digest: str
    tree: Tree = field(compare=False)


@lru_cache(maxsize=16)
def _graph(contents: _Contents, python_path: tuple[str, ...]) -> Graph:
    texts: dict[str, str] = {}
    manifests: dict[str, str] = {}
    for path in contents.tree.paths():
        found = manifests if PurePosixPath(path).name in MANIFESTS else texts
        if found is manifests or language_of(path) is not None:
            text = read(contents.tree, path)
            if text is not None and len(text) <= LARGEST:
                found[path] = text
    modules = Modules.of(texts, manifests, python_path)
    return Graph(texts, manifests, modules, (Layer(texts, modules, texts),))


def _language(path: str) -> Language:
    language = language_of(path)
    assert language is not None  # other files are not in the graph
    return language


@lru_cache(maxsize=1024)
def _links(path: str, text: str, modules: Modules) -> Links:
    known = facts(text, _language(path))
    uses: dict[tuple[str, Symbol], None] = {}
    aliases: list[tuple[str, Symbol]] = [(alias, (path, symbol)) for alias, symbol in known.aliases]
    stars: list[str] = []
    imports: dict[str, bool] = {}
    bindings: dict[str, str] = {}
    for each in known.imports:
        target = modules.resolve(modules.absolute(each.dotted, path))
        if each.alias not in ("", "*"):
            bindings[each.alias] = modules.absolute(each.bound, path)
        if target is None or target[0] == path:
            continue
        imports[target[0]] = each.is_lazy and imports.get(target[0], True)
        uses[MODULE, target] = None
        if each.alias == "*":
            stars.append(target[0])
        elif not each.is_module:
            aliases.append((each.alias, target))
    uses.update(dict.fromkeys(_references(path, known, bindings, stars, modules)))
    # What a package shares is seen where it is imported, and not handed on.
    handed_on = tuple(star for star in stars if not star.endswith("/"))
    return Links(tuple(uses), tuple(aliases), handed_on, imports)


def _references(
    path: str, known: Facts, bindings: Mapping[str, str], stars: list[str], modules: Modules
) -> Iterator[tuple[str, Symbol]]:
    """What each symbol of a file uses, by name and by dotted name."""
    language = _language(path)
    package = modules.packages.get(path)
    elsewhere = [*stars, *([package] if package is not None else [])]
    for symbol, names in known.names.items():
        own = symbol.partition(".")[0]
        for name in names:
            if name in bindings:
                target = modules.resolve(bindings[name])
                if target is not None and target[1] != WHOLE:
                    yield symbol, target
                elif target is not None and language.has_default:
                    yield symbol, (target[0], "default")
            elif name in known.texts:
                if name != own:
                    yield symbol, (path, name)
            else:
                yield from ((symbol, (place, name)) for place in elsewhere)
    for symbol, chains in known.chains.items():
        for chain in chains:
            first, _, rest = chain.partition(".")
            if first in bindings:
                target = modules.resolve(f"{bindings[first]}.{rest}")
            else:
                is_rooted = language.is_rooted_anywhere or first in language.rooted
                target = modules.resolve(modules.absolute(chain, path)) if is_rooted else None
            if target is not None and target[1] != WHOLE:
                yield symbol, target
