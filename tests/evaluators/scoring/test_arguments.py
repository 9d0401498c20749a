"""The Python API checks its arguments at the call, with one clear error each."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from regrade import rewards
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.evaluators import local_task
from regrade.evaluators.sandboxes import Process
from regrade.evaluators.scoring.scorer import Scorer, score
from regrade.rewards.evidence import Diff


def plain(diff):
    return diff.changed_lines


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": "2"}, "workers='2': pass a whole number"),
        ({"workers": 0}, "workers=0: pass a whole number"),
        ({"workers": 1.5}, "workers=1.5"),
        ({"sandbox": None}, "sandbox=None: pass 'auto'"),
        ({"sandbox": Process}, "sandbox=<class .*Process"),
        ({"sandbox": "cellar"}, "unknown sandbox 'cellar'"),
        ({"cache": 5}, "cache=5: pass a path"),
        ({"audit": "0.5"}, "audit='0.5': pass a share"),
        ({"audit": 2}, "audit=2: pass a share"),
        ({"probes": [Diff]}, "probes=.*: pass a mapping"),
        ({"probes": {"Diff": plain}}, "'Diff'.* is no type of evidence"),
    ],
)
def test_each_wrong_option_of_a_scorer_is_named(task, fix, options, words):
    with pytest.raises(UserError, match=words):
        Scorer(**options)
    with pytest.raises(UserError, match=words):
        score(task, fix, rewards.tests, **options)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("default", r"'default' is a name: .*load_reward\('default'\)"),
        (plain, "'plain' is no reward: decorate a function with @reward"),
        (None, "None is no reward: compose one"),
    ],
)
def test_what_is_no_reward_is_told_so_everywhere(scorer, task, fix, wrong, words):
    jobs = [(task, fix)]
    for ask in (
        lambda: score(task, fix, wrong),
        lambda: scorer.score(jobs, wrong),
        lambda: list(scorer.stream(jobs, wrong)),
        lambda: asyncio.run(scorer.score_async(task, fix, wrong)),
    ):
        with pytest.raises(UserError, match=words):
            ask()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", r"is no Patch: pass Patch\(text\)"),
        ("fix.diff", r"is no Patch: pass Patch\(Path\('fix.diff'\).read_text\(\)\)"),
        (Path("fix.diff"), r"is no Patch: pass Patch\(Path\('fix.diff'\).read_text\(\)\)"),
        (None, "None is no Patch"),
    ],
)
def test_what_is_no_patch_is_told_so_everywhere(scorer, task, fix, wrong, words):
    jobs = [(task, fix), (task, wrong)]
    with pytest.raises(UserError, match=words):
        score(task, wrong, rewards.tests)
    with pytest.raises(UserError, match=words):
        asyncio.run(scorer.score_async(task, wrong, rewards.tests))
    for ask in (
        lambda: scorer.score(jobs, rewards.small_diff),
        lambda: scorer.gather(jobs, [Diff]),
        lambda: list(scorer.stream(jobs, rewards.small_diff)),
    ):
        with pytest.raises(UserError, match=r"jobs\[1\]: .*" + words):
            ask()


def test_jobs_that_are_no_pairs(scorer, task, fix):
    for jobs, words in (
        ((task, fix), r"jobs\[0\]: .* is no pair"),
        (task, "the jobs are .*pass a list of pairs"),
        ([("my/project", fix)], r"jobs\[0\]: 'my/project' is no Task: create one with local_task"),
    ):
        with pytest.raises(UserError, match=words):
            scorer.score(jobs, rewards.small_diff)


def test_needs_that_are_no_types(scorer, task, fix):
    for needs, words in (
        (Diff, "pass a collection of types"),
        (["Diff"], "'Diff' is no type of evidence"),
        (rewards.small_diff, "pass its `needs`"),
    ):
        with pytest.raises(UserError, match=words):
            scorer.gather([(task, fix)], needs)


def test_jobs_from_a_generator_are_taken(scorer, task, fix):
    (found,) = scorer.gather(((task, patch) for patch in [fix]), [Diff])
    assert found.records[Diff].changed_lines == 2


def test_texts_that_are_paths_are_taken(task, fix, tmp_path):
    with Scorer(workers=1, cache=str(tmp_path / "cache")) as scorer:
        assert scorer.score([(task, fix)], rewards.small_diff)[0].is_scored
    assert (tmp_path / "cache" / "evidence.sqlite").exists()


def test_a_local_task_takes_texts(task, tmp_path):
    failing = "tests/test_calculator.py::test_add"
    made = local_task(
        str(task.base.root), failing, runs=1, cache=str(tmp_path / "cache"), sandbox=Process(), tell=lambda _: None
    )
    assert made.fail_to_pass == (failing,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"repo": None}, "repo=None: pass a path"),
        ({"repo": "nowhere"}, "'nowhere' is no folder"),
        ({"fail_to_pass": [Path("tests")]}, "fail_to_pass=.*pass a list of texts"),
        ({"fail_to_pass": None}, "fail_to_pass=None: pass a list of texts"),
        ({"sandbox": None}, "sandbox=None: pass 'auto'"),
        ({"runs": 0}, "runs=0: pass a whole number"),
        ({"time_limit": "600"}, "time_limit='600': pass a number above 0"),
        ({"cache": 5}, "cache=5: pass a path"),
        ({"python": 3}, "python=3: pass a path"),
    ],
)
def test_each_wrong_option_of_a_local_task_is_named(task, options, words):
    with pytest.raises(UserError, match=words):
        local_task(**{"repo": task.base.root, **options})


def test_a_patch_is_made_of_text():
    for wrong in (b"--- a/x\n", Path("fix.diff"), None):
        with pytest.raises(UserError, match="a patch is the text of a unified diff, not"):
            Patch(wrong)


def test_a_cluster_names_wrong_options_before_it_looks_for_one():
    pytest.importorskip("ray")
    from regrade.evaluators.scoring.ray_scorer import RayScorer

    for options, words in (({"workers": "2"}, "workers='2'"), ({"workers": 0}, "workers=0"), ({"cpus": 0}, "cpus=0")):
        with pytest.raises(UserError, match=words):
            RayScorer(**options)


def test_a_number_of_workers_beyond_any_machine_is_refused():
    with pytest.raises(UserError, match=r"workers=1000000000000000000000: pass a whole number of at most 1,024"):
        Scorer(workers=10**21)
