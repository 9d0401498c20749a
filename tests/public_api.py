"""Writes docs/api.md: every public name with its signature. `python tests/public_api.py` after a change that is meant."""

from __future__ import annotations

import enum
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
MODULES = (
    "regrade.datasets.episodes",
    "regrade.datasets.errors",
    "regrade.datasets.exports",
    "regrade.datasets.patches",
    "regrade.datasets.rollouts",
    "regrade.datasets.sources",
    "regrade.datasets.tasks",
    "regrade.rewards",
    "regrade.rewards.conformance",
    "regrade.evaluators",
    "regrade.policy_training",
    "regrade.reports",
)
"""All that is public: faces of packages, modules of `datasets`, which has no `__init__` and so no face, and the checks of
rewards, which need hypothesis and so are not imported with the others."""
OF_OTHER_PROGRAMS = ("regrade.policy_training.adapters", "regrade.policy_training.serving.client")
"""Public too: modules, and packages of modules, that configurations of other trainers name; their pages describe them."""


def is_public_module(name: str) -> bool:
    return name in MODULES or any(name == each or name.startswith(f"{each}.") for each in OF_OTHER_PROGRAMS)


INTRODUCTION = """\
# Python API

This page lists every public name with its signature. Everything else is private and may change without notice. A test
compares the page with the code; `python tests/public_api.py` writes it again after an intended change.
"""


def public_names(module: ModuleType) -> list[str]:
    """`__all__`, or what a module of `datasets` defines itself under a name without an underscore."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return sorted(listed)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return sorted(name for name in own if not name.startswith("_"))


def lines_of(name: str, value: object) -> Iterator[str]:
    """A function or class with its signature and public members; of any other value the type."""
    if inspect.isclass(value) and issubclass(value, enum.Enum):
        yield f"class {name}: {', '.join(value.__members__)}"
    elif inspect.isclass(value):
        yield f"class {name}{_signature(value)}"
        for member, content in sorted(vars(value).items()):
            if member.startswith("_"):
                continue
            function = content.__func__ if isinstance(content, classmethod | staticmethod) else content
            if inspect.isfunction(function):
                yield f"    {member}{_signature(function)}"
            elif isinstance(content, property) or type(content).__name__ == "cached_property":
                yield f"    {member}"
    elif inspect.isroutine(value):
        yield f"{name}{_signature(value)}"
    elif inspect.ismodule(value):
        yield f"{name}: module"
    else:
        yield f"{name}: {type(value).__name__}"


class _Shown:
    """Text that stands in a signature as it is, without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _signature(value: object) -> str:
    try:
        signature = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    shown = [
        parameter.replace(annotation=_annotation(parameter.annotation), default=_default(parameter.default))
        for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=shown, return_annotation=_annotation(signature.return_annotation)))


def _annotation(annotation: object) -> object:
    if annotation is inspect.Signature.empty:
        return annotation
    return _Shown(annotation.__name__ if isinstance(annotation, type) else str(annotation))


def _default(value: object) -> object:
    """As written in the code where that is short; the order of a set and an address in memory change from run to run."""
    if value is inspect.Parameter.empty or (
        isinstance(value, str | int | float | bool | None) and len(repr(value)) < 40
    ):
        return value
    return _Shown(str(value) if isinstance(value, enum.Enum) else "..." if value else repr(value))


def fold(line: str) -> list[str]:
    """A long signature over several lines."""
    indent = " " * (len(line) - len(line.lstrip()) + 8)
    return textwrap.wrap(line, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def page() -> str:
    sections = [INTRODUCTION]
    for name in MODULES:
        module = importlib.import_module(name)
        summary = (module.__doc__ or "").strip().splitlines()[0]
        lines = [
            folded
            for each in public_names(module)
            for line in lines_of(each, getattr(module, each))
            for folded in fold(line)
        ]
        sections.append(f"## {name}\n\n{summary}\n\n```\n" + "\n".join(lines) + "\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
