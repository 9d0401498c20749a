"""The graph reads files on demand: its results equal those of a graph that has read all files."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrade.datasets.mutation.packages import fetch, package
from regrade.datasets.tasks import Tree
from regrade.evaluators.static.dependencies.graph import Graph, Layer, graph_of
from regrade.evaluators.static.dependencies.reach import Explorer


def read_whole(graph: Graph) -> Graph:
    layer = Layer(graph.texts, graph.modules, graph.texts)
    layer.with_files(graph.texts)
    return Graph(graph.texts, graph.manifests, graph.modules, (layer,))


@pytest.mark.parametrize("name", ["toolz", "boltons"])
def test_every_symbol_reaches_the_same(name: str) -> None:
    lazy = graph_of(Tree(fetch(package(name))), (".",))
    whole = Explorer(read_whole(lazy))
    compared = 0
    for path in sorted(lazy.texts)[::3]:
        for symbol in sorted(lazy.facts(path).texts)[::5]:
            fresh = Graph(lazy.texts, lazy.manifests, lazy.modules, (Layer(lazy.texts, lazy.modules, lazy.texts),))
            scores = {at: step.score for at, step in Explorer(fresh).reach({(path, symbol): 1.0}).items()}
            assert scores == {at: step.score for at, step in whole.reach({(path, symbol): 1.0}).items()}, symbol
            compared += 1
    assert compared > 20


def test_only_files_that_contain_the_name_are_read(tmp_path: Path) -> None:
    (tmp_path / "core.py").write_text("def needle():\n    return 1\n")
    (tmp_path / "use.py").write_text("from core import needle\n\n\ndef use():\n    return needle()\n")
    for number in range(30):
        (tmp_path / f"other{number}.py").write_text(f"def other{number}():\n    return {number}\n")
    graph = graph_of(Tree(tmp_path), (".",))
    assert {path for path, _ in graph.users(("core.py", "needle"))} == {"use.py"}
    (layer,) = graph.layers
    assert len(layer._unread) == 30
