"""docs/recipes.md: its tables are those of the code, and what a description calls the default is the default."""

from __future__ import annotations

import re
import tomllib
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest

from regrade.policy_training.recipe_files import (
    SETTINGS,
    TrainingRecipe,
    default_of,
    key_fields,
    key_paths,
    read_recipe,
)
from tests import recipe_page

ROOT = Path(__file__).resolve().parent.parent


def test_the_tables_are_those_of_the_code() -> None:
    written = recipe_page.PAGE.read_text("utf-8")
    assert written == recipe_page.page(), "a key changed: if that is meant, run python tests/recipe_page.py"


def test_every_key_is_listed() -> None:
    page = recipe_page.page()
    missing = [key for key in key_paths() if f"| `{key.rpartition('.')[2]}` |" not in page]
    assert missing == []


def stated(kind: Any) -> list[tuple[str, str, Any]]:
    """(name, the default in its description, the default)."""
    fields = {name: default_of(each) for name, each in key_fields(kind).items() if not is_dataclass(default_of(each))}
    texts = {name: recipe_page.describe(kind, name).partition("Default: ")[2] for name in fields}
    return [(f"{kind.__name__}.{name}", texts[name], default) for name, default in fields.items() if texts[name]]


@pytest.mark.parametrize("kind", list(dict.fromkeys(SETTINGS.values())), ids=lambda kind: kind.__name__)
def test_a_description_states_the_default_of_its_key(kind: Any) -> None:
    found = stated(kind)
    assert len(found) >= 2
    for name, text, default in found:
        if default is None:
            assert text.startswith("None: "), name
        elif isinstance(default, bool | str):
            assert text.strip("`").startswith(str(default)), name
        else:
            number = re.match(r"[-+.\de]*\d", text)
            assert number, name
            assert float(number.group()) == default, name


def test_the_recipe_of_the_page_can_be_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", recipe_page.PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    path = tmp_path / "fix.toml"
    path.write_text(text)
    assert isinstance(read_recipe(path), TrainingRecipe)


def variants() -> dict[str, dict[str, Any]]:
    """Name -> the recipe that a row of the table of variants describes."""
    table = recipe_page.PAGE.read_text("utf-8").partition("## Variants")[2].partition("\n\n- ")[0]
    found = {}
    for row in re.findall(r"^\| (\w[^|]*) \| `(\S+)` \|(.*)\|$", table, re.MULTILINE):
        settings = "\n".join(re.findall(r"`(\w+ = [^`]+)`", row[2]))
        found[row[0]] = {"algorithm": row[1], "settings": tomllib.loads(settings)}
    return found


@pytest.mark.parametrize("name", variants())
def test_the_variants_of_the_page_can_be_read(tmp_path: Path, name: str) -> None:
    recipe = variants()[name]
    lines = [f"{key} = {recipe_page.toml(value)}" for key, value in recipe["settings"].items()]
    path = tmp_path / "variant.toml"
    path.write_text(f"algorithm = '{recipe['algorithm']}'\n[settings]\n" + "\n".join(lines))
    for key, value in recipe["settings"].items():
        assert getattr(read_recipe(path).settings, key) == value


def test_there_are_all_variants() -> None:
    names = ["GRPO as first published", "DAPO", "Dr.GRPO", "GSPO", "CISPO", "RLOO", "REINFORCE", "PPO"]
    assert [*variants()] == names
