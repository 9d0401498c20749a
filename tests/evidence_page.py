"""Writes the tables of docs/evidence.md from the code. `python tests/evidence_page.py` after a change that is meant."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from regrade import rewards

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "evidence.md"
SOURCE = ROOT / "rewards" / "evidence.py"
MARKER = "<!-- From here on written by `python tests/evidence_page.py`. -->\n"
"""What stands before it is written by hand."""


def sections() -> str:
    """One section a type, in the order of the code: what it is, its fields, its properties and methods."""
    classes = [node for node in ast.parse(SOURCE.read_text("utf-8")).body if isinstance(node, ast.ClassDef)]
    public = [node for node in classes if node.name in rewards.__all__ and node.name != "EvidenceSet"]
    by_name = {node.name: node for node in public}

    def bases(node: ast.ClassDef) -> list[ast.ClassDef]:
        names = [base.id for base in node.bases if isinstance(base, ast.Name)]
        return [by_name[name] for name in names if name in by_name]

    return "\n".join("\n".join(_section(node, bases(node))) + "\n" for node in public)


def _section(node: ast.ClassDef, bases: Sequence[ast.ClassDef]) -> Iterator[str]:
    yield f"### {node.name}\n"
    yield _text(ast.get_docstring(node), node.name) + "\n"
    is_enum = any(isinstance(base, ast.Name) and base.id == "StrEnum" for base in node.bases)
    yield "| value | meaning |\n|-|-|" if is_enum else "| field | type | meaning |\n|-|-|-|"
    yield from (_values if is_enum else _rows)(node)
    for base in bases:
        yield from _rows(base)


def _rows(node: ast.ClassDef) -> Iterator[str]:
    for index, part in enumerate(node.body):
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            name = part.target.id
            meaning = _text(_string_after(node, index), f"{node.name}.{name}")
            yield f"| `{name}` | `{_type(part.annotation)}` | {meaning} |"
        elif isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
            shown = part.name if part.decorator_list else f"{part.name}({', '.join(_arguments(part))})"
            meaning = _text(ast.get_docstring(part), f"{node.name}.{part.name}")
            assert part.returns is not None
            yield f"| `{shown}` | `{_type(part.returns)}` | {meaning} |"


def _values(node: ast.ClassDef) -> Iterator[str]:
    for index, part in enumerate(node.body):
        if isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Name):
            name = part.targets[0].id
            if not name.startswith("_"):
                meaning = " ".join((_string_after(node, index) or "").split()) or ast.literal_eval(part.value)
                yield f"| `{name}` | {meaning} |"


def _arguments(function: ast.FunctionDef) -> Iterator[str]:
    for argument in function.args.args[1:]:
        assert argument.annotation is not None
        yield f"{argument.arg}: {_type(argument.annotation)}"


def _type(annotation: ast.expr) -> str:
    return ast.unparse(annotation).replace(" | ", " or ")  # a bar would end the cell


def _string_after(node: ast.ClassDef, index: int) -> str | None:
    """The string literal below a field, which describes it."""
    following = node.body[index + 1] if index + 1 < len(node.body) else None
    if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
        return str(following.value.value)
    return None


def _text(text: str | None, name: str) -> str:
    if not text:
        raise ValueError(f"{name} has no description: write it below, in {SOURCE}")
    return " ".join(text.split()).replace("|", "or")


def page() -> str:
    """The page with its handwritten beginning as it is."""
    return PAGE.read_text("utf-8").partition(MARKER)[0] + MARKER + "\n" + sections()


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
