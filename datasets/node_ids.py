"""Parts of a node id: `file::Class::test[parameters]` of a test, `file::qualified.name` of a function."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath


def file_of(node_id: str) -> str:
    """The file, relative to the repository."""
    return node_id.partition("::")[0]


def test_files_of(tests: Iterable[str]) -> tuple[str, ...]:
    """The files of the tests, in order, without modules whose tests are examples in docstrings."""
    return tuple(dict.fromkeys(file_of(test) for test in tests if not _is_in_docstring(test)))


def _is_in_docstring(test: str) -> bool:
    """Is it `shop/cart.py::shop.cart.total`, as doctest names the example of a function?"""
    path, name = PurePosixPath(file_of(test)), test.partition("::")[2]
    parts = path.with_suffix("").parts
    modules = (".".join(parts[start:]) for start in range(len(parts)))
    return path.suffix == ".py" and any(name == module or name.startswith(f"{module}.") for module in modules)


def function_of(node_id: str) -> str:
    """The id without the parameters of a test."""
    return node_id.partition("[")[0]
