"""The requirements that a Python repository declares, in groups, with the file that declares each group.

Read: pyproject.toml (`project`, `dependency-groups`, poetry, pdm, uv, hatch), setup.cfg, tox, nox, requirements files;
and the locks of uv, poetry, pdm, pipenv and `pylock.toml`. Nothing is executed; a `setup.py` declares its requirements
to the build of the wheel (see `regrade.evaluators.task_curation.project_wheel`).
"""

from __future__ import annotations

import ast
import configparser
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from regrade.datasets.tasks import Tree

REQUIREMENT_FILE = re.compile(r"(?:[\w.-]*requirements?[\w.-]*|(?:.*/)?requirements/[\w.-]+)\.(?:txt|in|pip)")
"""Paths of requirements files, by their convention: pip itself knows no other sign of them."""
LOCKS = ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml")
_CARET = re.compile(r"[\^~]\s*(\d+)(?:\.(\d+))?(?:\.(\d+))?\S*")


@dataclass(frozen=True)
class RequirementGroup:
    """Requirements that are declared together."""

    origin: str
    """The file and the place in it."""
    requirements: tuple[str, ...]
    extras: tuple[str, ...] = ()
    """Extras of the project itself that belong to the group."""

    @property
    def names(self) -> frozenset[str]:
        """Normalised names of the distributions."""
        return frozenset(canonicalize_name(Requirement(each).name) for each in self.requirements)


def build_requirements(tree: Tree) -> tuple[str, ...] | None:
    """Requirements of the build (PEP 518); None: the repository declares no build."""
    table = _toml(tree, "pyproject.toml").get("build-system")
    if isinstance(table, Mapping):
        return _valid(_texts(table.get("requires")))
    is_project = any(_text(tree, name) is not None for name in ("setup.py", "setup.cfg"))
    return ("setuptools", "wheel") if is_project or "project" in _toml(tree, "pyproject.toml") else None


def runtime_requirements(tree: Tree) -> RequirementGroup:
    """The project's own requirements, as far as a file declares them."""
    project = _table(_toml(tree, "pyproject.toml"), "project")
    if declared := _valid(_texts(project.get("dependencies"))):
        return RequirementGroup("pyproject.toml [project] dependencies", declared)
    poetry = _table(_toml(tree, "pyproject.toml"), "tool", "poetry", "dependencies")
    if poetry:
        return RequirementGroup("pyproject.toml [tool.poetry.dependencies]", _poetry(poetry))
    options = _section(_ini(tree, "setup.cfg"), "options")
    return RequirementGroup("setup.cfg [options] install_requires", _lines(options.get("install_requires", "")))


def declared_groups(tree: Tree) -> list[RequirementGroup]:
    """All other groups, in the order of their files; empty ones are left out."""
    groups = [
        *_project_groups(_toml(tree, "pyproject.toml")),
        *_setup_cfg_groups(_ini(tree, "setup.cfg")),
        *_tox_groups(tree),
        *_nox_groups(tree),
        *_requirement_files(tree),
    ]
    return [group for group in groups if group.requirements or group.extras]


def locked_versions(tree: Tree) -> dict[str, str]:
    """Normalised name -> version in the repository's lock; empty: it has none."""
    versions: dict[str, str] = {}
    for name in LOCKS:
        document = _toml(tree, name)
        for entry in _dictionaries(document.get("package", document.get("packages"))):
            # The same distribution at two versions, for two platforms, is left open.
            if isinstance(entry.get("name"), str) and isinstance(entry.get("version"), str):
                distribution = canonicalize_name(entry["name"])
                versions[distribution] = "" if distribution in versions else entry["version"]
        if versions:
            return {distribution: version for distribution, version in versions.items() if version}
    try:
        pipfile = json.loads(_text(tree, "Pipfile.lock") or "{}")
    except ValueError:
        return {}
    for part in ("default", "develop"):
        for name, entry in _table(pipfile, part).items():
            if isinstance(entry, Mapping) and str(entry.get("version", "")).startswith("=="):
                versions[canonicalize_name(name)] = str(entry["version"])[2:]
    return versions


def _project_groups(document: Mapping[str, Any]) -> Iterator[RequirementGroup]:
    for name, entry in _table(document, "project", "optional-dependencies").items():
        yield RequirementGroup(f"pyproject.toml [project.optional-dependencies] {name}", *_own_extras(entry, document))
    groups = _table(document, "dependency-groups")
    for name in groups:
        entries = list(_expanded(groups, name, frozenset()))
        yield RequirementGroup(f"pyproject.toml [dependency-groups] {name}", *_own_extras(entries, document))
    poetry = _table(document, "tool", "poetry")
    yield RequirementGroup("pyproject.toml [tool.poetry.dev-dependencies]", _poetry(_table(poetry, "dev-dependencies")))
    for name, group in _table(poetry, "group").items():
        yield RequirementGroup(f"pyproject.toml [tool.poetry.group.{name}]", _poetry(_table(group, "dependencies")))
    for name, entry in _table(document, "tool", "pdm", "dev-dependencies").items():
        yield RequirementGroup(f"pyproject.toml [tool.pdm.dev-dependencies] {name}", _valid(_texts(entry)))
    uv = _texts(_table(document, "tool", "uv").get("dev-dependencies"))
    yield RequirementGroup("pyproject.toml [tool.uv] dev-dependencies", _valid(uv))
    for name, environment in _table(document, "tool", "hatch", "envs").items():
        texts = [
            text for key in ("dependencies", "extra-dependencies") for text in _texts(_table(environment).get(key))
        ]
        extras = tuple(_texts(_table(environment).get("features")))
        yield RequirementGroup(f"pyproject.toml [tool.hatch.envs.{name}]", _valid(texts), extras)


def _expanded(groups: Mapping[str, Any], name: str, above: frozenset[str]) -> Iterator[str]:
    """The requirements of a dependency group and of those that it includes (PEP 735)."""
    for entry in groups.get(name, ()) if isinstance(groups.get(name), list) else ():
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, Mapping) and isinstance(other := entry.get("include-group"), str) and other not in above:
            yield from _expanded(groups, other, above | {name})


def _own_extras(entries: object, document: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(requirements, extras of the project itself) of a group: `shop[fast]` in the project `shop` is an extra of it."""
    own = canonicalize_name(str(_table(document, "project").get("name", "")))
    requirements, extras = [], []
    for text in _valid(_texts(entries)):
        requirement = Requirement(text)
        if own and canonicalize_name(requirement.name) == own:
            extras += sorted(requirement.extras)
        else:
            requirements.append(text)
    return tuple(requirements), tuple(extras)


def _setup_cfg_groups(document: configparser.RawConfigParser) -> Iterator[RequirementGroup]:
    yield RequirementGroup(
        "setup.cfg [options] tests_require", _lines(_section(document, "options").get("tests_require", ""))
    )
    for name, text in _section(document, "options.extras_require").items():
        yield RequirementGroup(f"setup.cfg [options.extras_require] {name}", _lines(text))


def _tox_groups(tree: Tree) -> Iterator[RequirementGroup]:
    """`deps`, `extras` and requirements files of the environments of tox."""
    document = _ini(tree, "tox.ini")
    legacy = _table(_toml(tree, "pyproject.toml"), "tool", "tox").get("legacy_tox_ini")
    if isinstance(legacy, str):
        document = _parsed(legacy)
    for name in document.sections():
        if name == "testenv" or name.startswith("testenv:"):
            section = _section(document, name)
            texts = [_factor_removed(line) for line in section.get("deps", "").splitlines()]
            yield RequirementGroup(
                f"tox.ini [{name}]",
                _unique(_with_files(tree, texts)),
                tuple(re.findall(r"[\w.-]+", re.sub(r"^\S+:", "", section.get("extras", ""), flags=re.MULTILINE))),
            )
    toml = _toml(tree, "tox.toml") or _table(_toml(tree, "pyproject.toml"), "tool", "tox")
    tables = {"env_run_base": _table(toml, "env_run_base"), **_table(toml, "env")}
    for name, table in tables.items():
        texts = [text for text in _texts(_table(table).get("deps")) if isinstance(text, str)]
        extras = tuple(_texts(_table(table).get("extras")))
        yield RequirementGroup(f"tox [{name}]", _unique(_with_files(tree, texts)), extras)


def _factor_removed(line: str) -> str:
    """`pytest` of `py312,!docs: pytest`, the condition of a line of tox."""
    return re.sub(r"^\s*[\w!,.{}\s-]+:\s+", "", line)


def _nox_groups(tree: Tree) -> Iterator[RequirementGroup]:
    """The arguments of `session.install` that are written out, by function."""
    try:
        module = ast.parse(_text(tree, "noxfile.py") or "")
    except (SyntaxError, ValueError, RecursionError):
        return
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef):
            texts: list[str] = []
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "install":
                    words = [each.value for each in node.args if isinstance(each, ast.Constant)]
                    texts += _as_lines([word for word in words if isinstance(word, str)])
            extras = [name for text in texts for name in re.findall(r"^(?:-e )?\.\[([\w.,-]+)\]$", text)]
            split = tuple(each for names in extras for each in names.split(","))
            yield RequirementGroup(f"noxfile.py {function.name}", _unique(_with_files(tree, texts)), split)


def _as_lines(words: list[str]) -> list[str]:
    """`-r`, `file` as one line, as in a requirements file."""
    lines: list[str] = []
    for word in words:
        if lines and lines[-1] in ("-r", "-c", "-e", "--requirement", "--constraint", "--editable", "--group"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _requirement_files(tree: Tree) -> Iterator[RequirementGroup]:
    for path in tree.paths():
        if REQUIREMENT_FILE.fullmatch(path):
            yield RequirementGroup(path, _unique(_with_files(tree, [f"-r {path}"])))


def _with_files(
    tree: Tree, lines: Iterable[str], folder: str = "", above: frozenset[str] = frozenset()
) -> Iterator[str]:
    """The requirements of the lines of a requirements file, with those of the files that it names."""
    for line in lines:
        text = re.sub(r"(?:^|\s)#.*$", "", line).strip().replace("{toxinidir}/", "").replace("{tox_root}/", "")
        text = re.split(r"\s--hash", text, maxsplit=1)[0].rstrip("\\ ")
        if match := re.match(r"(?:-r|--requirement)[\s=]*(\S+)", text):
            path = _normal_path(match[1] if not folder else f"{folder}/{match[1]}")
            content = None if path in above else _text(tree, path)
            if content is not None:
                yield from _with_files(tree, content.splitlines(), path.rpartition("/")[0], above | {path})
        elif text and not text.startswith("-"):
            yield from _valid([text])


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _normal_path(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return "/".join(parts)


def _poetry(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Poetry's own form as requirements: `{version = "^1.2", extras = [...]}`."""
    found = []
    for name, entry in table.items():
        for value in entry if isinstance(entry, list) else [entry]:
            fields = value if isinstance(value, Mapping) else {"version": value}
            if name != "python" and not {"path", "git", "url"} & fields.keys():
                extras = f"[{','.join(_texts(fields.get('extras')))}]" if fields.get("extras") else ""
                marker = f"; {fields['markers']}" if isinstance(fields.get("markers"), str) else ""
                found.append(f"{name}{extras}{_specifier(str(fields.get('version', '*')))}{marker}")
    return _valid(found)


def _specifier(text: str) -> str:
    parts = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        if match := _CARET.fullmatch(part):
            parts.append(_range(part[0], [int(each) for each in match.groups() if each is not None], part[1:].strip()))
        elif part != "*":
            parts.append(part if part[0] in "<>=!~" else f"=={part}")
    return ",".join(parts)


def _range(sign: str, numbers: list[int], lowest: str) -> str:
    """`^1.2` allows changes right of the first number that is not zero, `~1.2` those right of the second number."""
    kept = (
        min(2, len(numbers)) if sign == "~" else next((i + 1 for i, each in enumerate(numbers) if each), len(numbers))
    )
    above = [*numbers[: kept - 1], numbers[kept - 1] + 1]
    return f">={lowest},<{'.'.join(map(str, above))}"


def _valid(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts that are requirements of the index: no path, no URL, nothing that pip would read as an option."""
    found = []
    for text in texts:
        try:
            requirement = Requirement(text.strip())
        except InvalidRequirement:
            continue
        if requirement.url is None:
            found.append(str(requirement))
    return tuple(dict.fromkeys(found))


def _lines(text: str) -> tuple[str, ...]:
    return _valid(text.splitlines())


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list | tuple) else []


def _table(value: object, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _dictionaries(value: object) -> Iterator[Mapping[str, Any]]:
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, Mapping):
            yield entry


def _text(tree: Tree, path: str) -> str | None:
    """None for a missing file, and for a folder in its place."""
    try:
        return tree.read_or_none(path)
    except OSError:
        return None


def _toml(tree: Tree, path: str) -> Mapping[str, Any]:
    """A TOML file; empty if it is missing or damaged: then another file may declare what it would."""
    try:
        return tomllib.loads(_text(tree, path) or "")
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def _ini(tree: Tree, path: str) -> configparser.RawConfigParser:
    return _parsed(_text(tree, path) or "")


def _parsed(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return configparser.RawConfigParser()
    return parser


def _section(document: configparser.RawConfigParser, name: str) -> Mapping[str, str]:
    return dict(document.items(name)) if document.has_section(name) else {}
