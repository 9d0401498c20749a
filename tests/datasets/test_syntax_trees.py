"""Threads parse at once, while the garbage collector calls Python in between: then CPython miscounts."""

from __future__ import annotations

import ast
import gc
import inspect
import sys
import threading
from collections.abc import Iterator

import pytest

from regrade.datasets.syntax_trees import parse_or_none, parse_tree

SOURCE = inspect.getsource(ast)


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can, also in the middle of a tree."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()

    def run_python(phase: str, info: dict[str, int]) -> None:  # noqa: ARG001 (the signature of callbacks)
        for _ in range(20):
            pass

    sys.setswitchinterval(1e-6)
    gc.set_threshold(50, 2, 2)
    gc.callbacks.append(run_python)
    yield
    gc.callbacks.remove(run_python)
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("switching")
def test_threads_may_parse_at_once() -> None:
    failures: list[BaseException] = []

    def parse_often() -> None:
        try:
            for _ in range(20):
                parse_tree(SOURCE)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=parse_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_what_is_no_python_is_refused_at_once() -> None:
    with pytest.raises(SyntaxError):
        parse_tree("def")


@pytest.mark.parametrize("source", ["def", "a\0b", "\ud800", "(" * 5000, "-" * 100_000 + "1"])
def test_parse_or_none_gives_none_whatever_the_reason(source: str) -> None:
    assert parse_or_none(source) is None


def test_parse_or_none_gives_the_tree() -> None:
    tree = parse_or_none("a = 1")
    assert tree is not None
    assert ast.unparse(tree) == "a = 1"
