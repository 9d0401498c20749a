"""Writes the tables of docs/recipes.md from the code. `python tests/recipe_page.py` after a change that is meant."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from regrade.datasets.rollouts import Sampling
from regrade.policy_training.recipe_files import (
    SETTINGS,
    TrainingRecipe,
    default_of,
    key_fields,
    without_none,
)
from regrade.policy_training.trainers.settings import ONLY_OF, OnlineSettings

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "recipes.md"
MARKER = "<!-- From here on written by `python tests/recipe_page.py`. -->\n"
"""What stands before it is written by hand."""
OTHER_TEXTS = {
    (Sampling, "temperature"): "Of sampling; 0: always the likeliest token.",
    (Sampling, "samples"): "Attempts per task.",
}
"""Of fields that say nothing of themselves, as they belong to no recipe alone."""


def page() -> str:
    """The page with its handwritten beginning as it is."""
    return PAGE.read_text("utf-8").partition(MARKER)[0] + MARKER + "\n" + "\n".join(sections())


def sections() -> Iterator[str]:
    yield "### Of every recipe\n"
    algorithms = ", ".join(f"`{name}`" for name in SETTINGS)
    first = f"| `algorithm` | none: required | One of {algorithms}. |"
    yield from _table(TrainingRecipe, "", None, first, skip=("settings",))
    for kind in dict.fromkeys(SETTINGS.values()):
        names = [name for name, each in SETTINGS.items() if each is kind]
        yield f"### `[settings]` of {_listed(names)}\n"
        yield from _table(kind, "settings.", None, skip=("algorithm",))


def _table(kind: Any, path: str, base: Any, first: str = "", skip: tuple[str, ...] = ()) -> Iterator[str]:
    yield "| key | default | meaning |\n|-|-|-|" + (f"\n{first}" if first else "")
    hints = get_type_hints(kind, include_extras=True)
    nested = []
    for name, each in key_fields(kind).items():
        if name in skip:
            continue
        inner = without_none(hints[name])
        default = getattr(base, name) if base is not None else default_of(each)
        if is_dataclass(inner):
            nested.append((name, inner, default))
            continue
        yield _row(kind, name, default, hints[name])
    yield ""
    for name, inner, default in nested:
        text, _, stated = describe(kind, name).partition(" Default: ")
        unless = f" Without the table: {stated.removeprefix('None: ')}" if default is None else ""
        yield f"`[{path}{name}]`: {text[:1].lower()}{text[1:]}{unless}\n"
        yield from _table(inner, f"{path}{name}.", default)


def _row(kind: Any, name: str, default: Any, hint: Any) -> str:
    text, _, stated = describe(kind, name).partition(" Default: ")
    of = f"({_listed([*ONLY_OF[name]])}) " if kind is OnlineSettings and name in ONLY_OF else ""
    value = stated.removesuffix(".").removeprefix("None: ") if default is None else f"`{toml(default)}`"
    if default is None and without_none(hint) is hint:
        value = "none: required"
    reason = stated.partition(": ")[2] if default is not None else ""
    more = f" The default: {reason}" if reason else ""
    return f"| `{name}` | {value} | {of}{text}{more} |"


def _listed(names: list[str]) -> str:
    return " and ".join([*([", ".join(names[:-1])] if names[:-1] else []), names[-1]])


def toml(value: Any) -> str:
    """A default as it would stand in a recipe."""
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def describe(kind: Any, name: str) -> str:
    """The string literal below a field, which describes it."""
    text = OTHER_TEXTS.get((kind, name)) or _texts(kind).get(name)
    if not text:
        raise ValueError(f"{kind.__name__}.{name} has no description: write it below")
    return " ".join(text.split()).replace("|", "or")


@cache
def _texts(kind: Any) -> dict[str, str]:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(node, ast.ClassDef)
    found = {}
    for part, following in zip(node.body, node.body[1:], strict=False):
        if not isinstance(part, ast.AnnAssign) or not isinstance(part.target, ast.Name):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            found[part.target.id] = str(following.value.value)
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
