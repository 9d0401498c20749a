"""`regrade score` and `explain` on a local repository: what is printed, what is kept, and each kind of bad input."""

from __future__ import annotations

import json
import math

import pytest

FAILING = "tests/test_calc.py::test_add"
PART_KEYS = {"name", "value", "weight", "contribution", "why"}


def score(regrade, *arguments):
    outcome = regrade("score", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_a_fix_a_breakage_and_a_crash_are_told_apart(regrade, repo, fix, diff):
    breaks = diff("a * 2", "a * 3")
    crashes = diff("a - b\n", "a + b\n\n\nimport os\nos._exit(0)\n")
    found = score(regrade, fix, breaks, crashes, "--repo", repo, "--fail-to-pass", FAILING)
    assert [each["patch"] for each in found] == [str(fix), str(breaks), str(crashes)]
    assert found[0]["value"] > 0.9
    assert found[1]["value"] < 0.5
    assert found[2]["value"] == 0.0
    assert found[2]["cause"]
    for each in found:
        assert each["status"] == "scored"
        assert each["assurance"] == "in-process"
        assert all(set(part) >= PART_KEYS for part in each["parts"])
        assert math.fsum(part["contribution"] for part in each["parts"]) == pytest.approx(each["value"], abs=1e-9)
    assert (repo / "calc" / "__init__.py").read_text().count("a - b") == 1, "the repository itself stays as it was"


def test_explain_prints_the_tree_of_a_patch(regrade, repo, fix):
    (scored,) = score(regrade, fix, "--repo", repo, "--fail-to-pass", FAILING)
    explained = json.loads(regrade("explain", fix, "--repo", repo, "--fail-to-pass", FAILING, "--json").out)
    assert explained["value"] == scored["value"]
    assert explained["parts"] == scored["parts"]
    tree = regrade("explain", fix, "--repo", repo, "--fail-to-pass", FAILING).out
    assert f"{scored['value']:.3f}" in tree
    assert all(part["name"] in tree for part in scored["parts"])
    section = regrade("explain", fix, "--repo", repo, "--fail-to-pass", FAILING, "--html").out
    assert section.startswith("<section")
    assert all(f">{part['name']}</th>" in section for part in scored["parts"])
    assert regrade("explain", fix, "--repo", repo, "--html", "--json").is_refusal("--json and --html")


def test_a_reward_that_asks_a_model_needs_one(regrade, repo, fix, tmp_path):
    asked = ("score", fix, "--repo", repo, "--reward", "learned")
    assert regrade(*asked).is_refusal("--reward-model")
    pytest.importorskip("torch")
    assert regrade(*asked, "--reward-model", tmp_path / "none").is_refusal("holds no reward model")


def test_without_a_test_to_fix_the_tests_that_pass_are_guarded(regrade, repo, diff):
    harmless, breaks = diff("a * 2", "2 * a"), diff("a * 2", "a * 3")
    found = score(regrade, harmless, breaks, "--repo", repo, "--reward", "tests")
    assert found[0]["value"] == 1.0
    assert found[1]["value"] < 0.5


def test_a_reward_of_the_users_own_and_a_patch_from_standard_input(regrade, repo, fix, tmp_path):
    (tmp_path / "rewards.py").write_text(
        "from regrade.rewards import Diff, Score, reward\n\n\n"
        "@reward\ndef short(diff: Diff) -> Score:\n    return Score(1 / diff.changed_lines, why='short')\n"
    )
    outcome = regrade(
        "score", "-", "--repo", repo, "--reward", f"{tmp_path / 'rewards.py'}:short", "--json", text=fix.read_text()
    )
    found = json.loads(outcome.out)
    assert (found["patch"], found["value"]) == ("-", 0.5)


def test_patches_that_do_not_apply_name_file_and_line(regrade, repo, tmp_path):
    patch = tmp_path / "stale.diff"
    patch.write_text(
        "--- a/calc/__init__.py\n+++ b/calc/__init__.py\n"
        "@@ -1,2 +1,2 @@\n def add(a, b):\n-    return a % b\n+    return 1\n"
    )
    assert regrade("score", patch, "--repo", repo).is_refusal("stale.diff", "does not apply", "calc/__init__.py:1")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("this is no diff\n", ["unified diff"]),
        ("--- a/x\n+++ b/x\n@@ -1,1 +1,9 @@\n-a\n+b\n", ["not a unified diff"]),
        ("--- a/../x\n+++ b/../x\n@@ -1,1 +1,1 @@\n-a\n+b\n", ["leaves the repository"]),
    ],
)
def test_text_that_is_no_patch_is_refused(regrade, repo, tmp_path, content, words):
    patch = tmp_path / "bad.diff"
    patch.write_text(content)
    assert regrade("score", patch, "--repo", repo).is_refusal("bad.diff", *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.diff"], ["nowhere.diff", "cannot be read"]),
        (["FIX", "--repo", "nowhere"], ["nowhere"]),
        (["FIX", "--repo", "REPO", "--fail-to-pass", "tests/test_calc.py::test_subtract"], ["test_subtract"]),
        (["FIX", "--repo", "REPO", "--fail-to-pass", "tests/test_calc.py::test_double"], ["test_double"]),
        (["FIX", "--repo", "REPO", "--reward", "kindness"], ["unknown reward 'kindness'", "default"]),
        (["FIX", "--repo", "REPO", "--reward", "nowhere.py:kindness"], ["nowhere.py"]),
        (["FIX", "--repo", "REPO", "--sandbox", "cellar"], ["unknown sandbox 'cellar'", "bubblewrap"]),
        (["FIX", "--tasks", "nowhere.json"], ["nowhere.json"]),
    ],
)
def test_each_kind_of_bad_input_is_one_line(regrade, repo, fix, arguments, words):
    given = {"FIX": fix, "REPO": repo}
    assert regrade("score", *(given.get(each, each) for each in arguments)).is_refusal(*words)


def test_a_reward_file_that_fails_is_named_with_its_line(regrade, repo, fix, tmp_path):
    (tmp_path / "mine.py").write_text("x = 1\ny = 1 / 0\n")
    spec = f"{tmp_path / 'mine.py'}:x"
    assert regrade("score", fix, "--repo", repo, "--reward", spec).is_refusal("mine.py:2", "ZeroDivisionError")


def test_a_repository_without_tests_is_refused(regrade, repo, fix):
    (repo / "tests" / "test_calc.py").unlink()
    assert regrade("score", fix, "--repo", repo).is_refusal("no test")


def test_without_bubblewrap_its_name_is_refused_with_what_to_install(regrade, repo, fix, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name, *_, **__: None if name == "bwrap" else f"/usr/bin/{name}")
    assert regrade("score", fix, "--repo", repo, "--sandbox", "bubblewrap").is_refusal("bwrap", "install")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["tasks.json", "JSON"]),
        ("[]", ["tasks.json", "no task"]),
        ('[{"instruction": "mend it"}]', ["tasks.json", "task 1"]),
        ('{"instruction": "x", "fail_to_pass": [], "repository": "repo"}', ["fail_to_pass"]),
        ('{"instruction": "x", "fail_to_pass": ["t"], "repository": "nowhere"}', ["nowhere"]),
        ('{"instruction": "x", "fail_to_pass": ["t"], "repository": "repo", "colour": 1}', ["colour"]),
    ],
)
@pytest.mark.usefixtures("repo")
def test_a_wrong_task_file_names_file_and_key(regrade, fix, tmp_path, text, words):
    (tmp_path / "tasks.json").write_text(text)
    assert regrade("score", fix, "--tasks", tmp_path / "tasks.json").is_refusal(*words)


@pytest.mark.usefixtures("repo")
def test_a_task_of_a_file_is_scored_and_validated(regrade, fix, tmp_path):
    task = {
        "id": "add", "instruction": "mend add", "repository": "repo", "fail_to_pass": [FAILING],
        "pass_to_pass": ["tests/test_calc.py::test_double"], "reference": fix.read_text(),
    }  # fmt: skip
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(task) + "\n")
    (found,) = score(regrade, fix, "--tasks", path, "--task", "add", "--reward", "tests")
    assert found["value"] == 1.0
    assert regrade("score", fix, "--tasks", path, "--task", "sub").is_refusal("no task 'sub'", "'add'")
    assert "1 of 1 tasks hold" in regrade("tasks", "validate", path).out

    path.write_text(
        json.dumps({**task, "pass_to_pass": [], "fail_to_pass": ["tests/test_calc.py::test_double"]}) + "\n"
    )
    outcome = regrade("tasks", "validate", path)
    assert outcome.code == 2
    assert "FAIL_TO_PASS tests pass at the base: tests/test_calc.py::test_double" in outcome.out
