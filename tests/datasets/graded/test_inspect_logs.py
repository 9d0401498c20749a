"""Logs of Inspect, written and read by its own package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.graded.reading import GradedPolicy, read_policies
from regrade.datasets.graded.records import Findings

METADATA = {"repo": "x/x", "FAIL_TO_PASS": json.dumps(["f"]), "PASS_TO_PASS": json.dumps(["a", "b", "c"])}


@pytest.fixture(scope="module", params=["eval", "json"])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three samples with two epochs: SWE-bench's scorer, a score alone, a scorer that fails."""
    pytest.importorskip("inspect_ai", reason="the extra `inspect` is not installed")
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import Score, mean, scorer
    from inspect_ai.solver import solver

    @solver
    def idle():
        async def solve(state, _generate):
            return state

        return solve

    @scorer(metrics=[mean()])
    def tests_pass():
        async def score(state, _target):
            if state.sample_id == "x__x-3":
                raise RuntimeError("the container is gone")
            guards = {"b": "FAILED", "a": "PASSED"}
            lists = (
                f"PASS_TO_PASS:\n\n{json.dumps(guards, indent=2)}\n\nFAIL_TO_PASS:\n\n{json.dumps({'f': 'PASSED'})}\n\n"
            )
            is_first = state.sample_id == "x__x-1"
            return Score(value=0.0, explanation=lists if is_first else "", metadata={"model_patch": "+a"})

        return score

    samples = [
        Sample(id=f"x__x-{number}", input="mend", metadata=METADATA if number < 3 else None) for number in (1, 2, 3)
    ]
    task = Task(dataset=samples, solver=idle(), scorer=tests_pass(), epochs=2, name="swe_bench")
    folder = tmp_path_factory.mktemp(request.param)
    eval(
        task, model="mockllm/model", log_dir=str(folder), log_format=request.param, fail_on_error=False, display="none"
    )
    return next(folder.iterdir())


def read(source: Path) -> GradedPolicy:
    (policy,) = read_policies(source, Findings())
    return policy


def test_samples_and_epochs_of_a_log(log: Path) -> None:
    policy = read(log)
    assert policy.name == "mockllm/model"
    assert sorted(policy.samples) == [(0, 0), (0, 1)]
    first, second, third = (policy.samples[0, 1][f"x__x-{number}"] for number in (1, 2, 3))
    assert first.fail_to_pass is not None
    assert first.pass_to_pass is not None
    assert (first.fail_to_pass.failed, first.pass_to_pass.failed_ids, first.pass_to_pass.uncounted) == (0, ("b",), 1)
    assert (first.patch, first.repository) == ("+a", "x/x")
    assert (second.fix, second.resolved, second.pass_to_pass) == (None, False, None)
    assert third.why.startswith("the sample failed: ")
    assert (third.fix, third.resolved) == (None, None)


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_damaged_log_is_one_line(log: Path, tmp_path: Path, is_cut: bool) -> None:
    cut, content = tmp_path / f"cut{log.suffix}", bytearray(log.read_bytes())
    for place in range(1500, len(content) // 2, 97):
        content[place] ^= 0x5A
    cut.write_bytes(content[:3000] if is_cut else content)
    with pytest.raises(UserError, match="no graded results of a known format"):
        read(cut)
