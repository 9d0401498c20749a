"""Results that a candidate writes without a seal, or by replaced functions, are dropped."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.patches import Patch
from regrade.evaluators.inside.sealing import new_key, sealing_writer, unsealed_lines
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.evidence import TestRun as RunOfTests

HERE = str(Path(__file__).parent)
FORGED = '["test", "tests/test_calculator.py::test_add", "passed", 0.0, ""]'


@given(st.lists(st.text(st.characters(exclude_characters="\n"))), st.binary())
def test_only_sealed_lines_are_read(lines: list[str], junk: bytes) -> None:
    key = new_key()
    file = os.memfd_create("results")
    try:
        write = sealing_writer(file, key, HERE)
        for line in lines:
            write(line)
        os.write(file, junk + b"\n" + FORGED.encode() + b"\n")
        sealing_writer(file, new_key(), HERE)(FORGED)
        data = os.pread(file, 1 << 20, 0)
    finally:
        os.close(file)
    assert unsealed_lines(data, key) == [line.encode("utf-8", "backslashreplace").decode() for line in lines]


BLIND = """\
import json
import os

TESTS = {tests!r}
lines = [json.dumps(["test", test, "passed", 0.0, ""]) for test in TESTS] + [json.dumps(["done", 0])]
for descriptor in range(3, 64):
    try:
        os.write(descriptor, ("\\n".join(["", *lines, ""])).encode())
    except OSError:
        pass
getattr(os, "_exit")(0)
"""
EXPLOITS = {
    "a replaced json.dumps": "import json\n_dumps = json.dumps\njson.dumps = lambda value, **_: _dumps("
    '[*value[:2], "passed", 0.0, ""] if value[0] == "test" else value)\n',
    "a replaced os.write": "import os\n_write = os.write\n"
    "os.write = lambda file, data: _write(file, data.replace(b'\"failed\"', b'\"passed\"'))\n",
    "lines for every descriptor": BLIND,
}


@pytest.mark.parametrize("name", EXPLOITS)
@pytest.mark.parametrize("cold", [False, True])
def test_a_forged_result_does_not_count(task, edit, tmp_path, name, cold):
    tests = (*task.fail_to_pass, *task.pass_to_pass)
    exploit = EXPLOITS[name].replace("{tests!r}", repr(tests))
    patch = edit("import functools\n", f"import functools\n{exploit}")
    with Scorer(workers=1, cache=tmp_path, cold=cold) as scorer:
        (evidence,) = scorer.gather([(task, patch)], [RunOfTests])
    assert not evidence.records[RunOfTests].resolved
    assert evidence.records[RunOfTests].fixed == ()


@pytest.mark.parametrize("path", ["sitecustomize.py", "pytest.py", "json.py"])
def test_a_file_that_shadows_a_module_is_not_run_by_the_worker(task, tmp_path, path):
    """A cold start had the tree on its path before the worker's own imports."""
    patch = Patch.between({}, {path: "raise SystemExit(0)\n"})
    for cold in (False, True):
        with Scorer(workers=1, cache=tmp_path / str(cold), cold=cold) as scorer:
            (evidence,) = scorer.gather([(task, patch)], [RunOfTests])
        run = evidence.records[RunOfTests]
        assert (run.fixed, run.broken) == ((), ()), run.detail


def test_results_are_json_whatever_they_contain(write_files, task, scorer):
    """Ids and messages are quoted without `json.dumps`, which a candidate can replace."""
    text = 'import pytest\n\n\n@pytest.mark.parametrize("a", [\'"\', "\\\\", "\\u2028"])\ndef test_odd(a):\n    assert a == "\\x00\\ud800", a\n'
    ids = tuple(f"test_odd.py::test_odd[{part}]" for part in ('"', "\\\\", "\\u2028"))
    odd = replace(task, base=write_files({"test_odd.py": text, "a.py": ""}), fail_to_pass=ids, pass_to_pass=())
    (evidence,) = scorer.gather([(odd, Patch(""))], [RunOfTests])
    outcomes = evidence.records[RunOfTests].outcomes
    assert {outcome.status.value for outcome in outcomes.values()} == {"failed"}, outcomes
    assert json.dumps([outcome.message for outcome in outcomes.values()])
