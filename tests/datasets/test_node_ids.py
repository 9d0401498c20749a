from __future__ import annotations

import pytest

from regrade.datasets.node_ids import file_of, function_of
from regrade.evaluators.inside.recording import node_ids as inside


@pytest.mark.parametrize("node_id", ["tests/a.py", "tests/a.py::test", "tests/a.py::Case::test[x::y]"])
def test_the_file_is_the_same_in_and_out_of_the_sandbox(node_id: str) -> None:
    assert file_of(node_id) == inside.file_of(node_id) == "tests/a.py"


def test_parameters_are_left_out() -> None:
    assert function_of("tests/a.py::Case::test[x[0]::y]") == "tests/a.py::Case::test"
    assert function_of("tests/a.py::test") == "tests/a.py::test"
