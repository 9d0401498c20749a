"""`regrade score` and `explain` on a local repository: output, stored results, and each kind of invalid input."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import venv
import zipfile

import pytest

from regrade.datasets.patches import Patch
from regrade.rewards.assurance_level import AssuranceLevel

FAILING = "tests/test_calc.py::test_add"
STALE = (
    "--- a/calc/__init__.py\n+++ b/calc/__init__.py\n"
    "@@ -1,2 +1,2 @@\n def add(a, b):\n-    return a % b\n+    return 1\n"
)
PART_KEYS = {"name", "value", "weight", "contribution", "why"}


def score(regrade, *arguments):
    outcome = regrade("score", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_a_fix_a_breakage_and_a_crash_are_distinguished(regrade, repo, fix, diff):
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
        assert each["not_excluded"] == AssuranceLevel(each["assurance"]).not_excluded
        assert all(set(part) >= PART_KEYS for part in each["parts"])
        assert math.fsum(part["contribution"] for part in each["parts"]) == pytest.approx(each["value"], abs=1e-9)
    assert [each["assurance"] for each in found] == ["out-of-process", "in-process", "in-process"]
    assert found[0]["verification_seconds"] > 0.0
    assert found[0]["tests_seconds"] > 0.0
    assert (repo / "calc" / "__init__.py").read_text().count("a - b") == 1, "the repository itself does not change"


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


def test_a_reward_of_a_model_needs_one(regrade, repo, fix, tmp_path):
    assert regrade("score", fix, "--repo", repo, "--reward", "learned").is_refusal("learned:FOLDER")
    asked = ("score", fix, "--repo", repo, "--reward", f"learned:{tmp_path / 'none'}")
    assert regrade(*asked).is_refusal("holds no reward model")


def test_without_a_test_to_fix_the_tests_that_pass_are_guarded(regrade, repo, diff):
    harmless, breaks = diff("a * 2", "2 * a"), diff("a * 2", "a * 3")
    found = score(regrade, harmless, breaks, "--repo", repo, "--reward", "tests")
    assert found[0]["value"] == 0.3
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
    patch.write_text(STALE)
    assert regrade("score", patch, "--repo", repo).is_refusal("stale.diff", "does not apply", "calc/__init__.py:1")


def test_a_diff_of_edits_in_the_working_tree_gets_advice(regrade, repo, fix, tmp_path):
    edited, made = repo / "calc" / "__init__.py", repo / "calc" / "more.py"
    fresh = Patch.between({}, {"calc/more.py": "x = 1\n"}).text
    edited.write_text(edited.read_text().replace("a - b", "a + b"))
    made.write_text("x = 1\n")
    told = ("already", "git stash show -p", "--repo")
    for text in (fix.read_text(), fresh, fix.read_text() + fresh):
        assert regrade("score", "-", "--repo", repo, text=text).is_refusal(*told)
    for text in (STALE, fix.read_text() + STALE.replace("calc/__init__", "calc/more")):
        assert "already" not in regrade("score", "-", "--repo", repo, text=text).err, "some of it is not there"
    task = {"id": "add", "instruction": "mend add", "repository": "repo", "fail_to_pass": [FAILING]}
    (tmp_path / "tasks.json").write_text(json.dumps(task))
    of_task = regrade("score", fix, "--tasks", tmp_path / "tasks.json")
    assert of_task.is_refusal("the base of the task already contains these changes")
    assert "stash" not in of_task.err
    made.unlink()
    gone = Patch.between({"calc/more.py": "x = 1\n"}, {}).text
    assert regrade("score", "-", "--repo", repo, text=gone).is_refusal(*told)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("this is no diff\n", ["unified diff"]),
        ("--- a/x\n+++ b/x\n@@ -1,1 +1,9 @@\n-a\n+b\n", ["does not apply", "x: No such file or directory"]),
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
        (["FIX", "--repo", "REPO", "--fail-to-pass", "test_add"], [f"did you mean {FAILING!r}?"]),
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
    assert regrade("score", fix, "--repo", repo).is_refusal("no test", str(repo))


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
    assert "1 of 1 tasks are valid" in regrade("tasks", "validate", path).out

    path.write_text(
        json.dumps({**task, "pass_to_pass": [], "fail_to_pass": ["tests/test_calc.py::test_double"]}) + "\n"
    )
    outcome = regrade("tasks", "validate", path)
    assert outcome.code == 2
    assert "FAIL_TO_PASS tests pass at the base: tests/test_calc.py::test_double" in outcome.out


def test_what_is_noted_for_people_stands_in_the_json_too(regrade, repo, fix, tmp_path):
    flaky = "import os\n\n\ndef test_flaky():\n    assert os.urandom(1)[0] < 128\n"
    (repo / "tests" / "test_flaky.py").write_text(flaky + "".join(flaky.replace("flaky", f"f{n}") for n in range(9)))
    (repo / "tests" / "test_lost.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "empty.diff").write_text("")
    outcome = regrade("score", fix, tmp_path / "empty.diff", "--repo", repo, "--json")
    of_fix, of_empty = [json.loads(line)["notes"] for line in outcome.out.splitlines()]
    told = ("tests/test_lost.py could not be collected", f"'{FAILING}'", "pass in some runs only")
    assert len(of_fix) == 3
    assert [words for words, note in zip(told, of_fix, strict=True) if words not in note] == [], of_fix
    assert of_empty == [*of_fix, f"{tmp_path / 'empty.diff'} is empty: its verdict is that of no change"]
    assert all(outcome.err.count(f"note: {note}\n") == 1 for note in of_empty)
    explained = regrade("explain", tmp_path / "empty.diff", "--repo", repo, "--json")
    assert json.loads(explained.out)["notes"] == of_empty
    assert f"note: {of_empty[-1]}\n" in explained.err


def test_other_tests_that_fail_are_noted_beside_those_named(regrade, repo):
    (repo / "tests" / "test_more.py").write_text("def test_more():\n    assert False\n")
    asked = ("score", "-", "--repo", repo, "--fail-to-pass", FAILING, "--json")
    (found,) = [json.loads(line) for line in regrade(*asked, text="").out.splitlines()]
    assert found["notes"] == [
        "1 of its tests fails as well, and a patch need not fix it: 'tests/test_more.py::test_more'",
        "the patch on standard input is empty: its verdict is that of no change",
    ]


def test_without_anything_to_note_there_are_no_notes(regrade, repo, fix):
    (found,) = score(regrade, fix, "--repo", repo, "--fail-to-pass", FAILING)
    assert found["notes"] == []


def test_of_several_patches_the_bad_ones_are_refused_and_the_others_scored(regrade, repo, fix, tmp_path):
    stale, prose, nowhere = (tmp_path / name for name in ("stale.diff", "prose.diff", "nowhere.diff"))
    stale.write_text(STALE)
    prose.write_text("this is no diff\n")
    asked = ("score", stale, fix, prose, nowhere, "--repo", repo, "--fail-to-pass", FAILING)
    outcome = regrade(*asked, "--json")
    assert outcome.code == 2
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert [line["patch"] for line in lines] == list(map(str, (stale, fix, prose, nowhere)))
    assert [line["status"] for line in lines] == ["refused", "scored", "refused", "refused"]
    assert lines[1]["value"] > 0.9
    assert [line["digest"] is None for line in lines] == [False, False, False, True]
    told = {stale: "calc/__init__.py:1", prose: "no file header", nowhere: "cannot be read"}
    for line in lines[:1] + lines[2:]:
        assert set(line) == set(lines[1])
        assert (line["value"], line["assurance"], line["parts"], line["notes"]) == (None, None, [], [])
        assert told[tmp_path / line["patch"]] in line["cause"]
        assert f"refused: {line['cause']}\n" in outcome.err
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: 3 of 4 patches refused")
    assert all(name in last for name in ("stale.diff", "prose.diff", "nowhere.diff"))
    assert outcome.err.count("error: ") == 1
    people = regrade(*asked)
    assert people.code == 2
    assert people.out.startswith(str(fix))
    assert "stale.diff" not in people.out.partition("\n\n")[0], "only the table names it"


def test_several_patches_end_in_a_table_with_totals(regrade, repo, fix, diff, tmp_path):
    (tmp_path / "bad.diff").write_text("no diff\n")
    breaks = diff("a * 2", "a * 3")
    outcome = regrade("score", fix, breaks, tmp_path / "bad.diff", "--repo", repo, "--fail-to-pass", FAILING)
    assert outcome.code == 2
    head, *lines, last = outcome.out.splitlines()[-5:]
    assert head.split() == ["patch", "value", "verdict", "broken", "cause"]
    assert [line.split()[0] for line in lines] == [str(fix), str(breaks), str(tmp_path / "bad.diff")]
    assert lines[0].split()[2:] == ["fixed", "0"]
    assert lines[1].split()[2:] == ["breaks", "1", "tests/test_calc.py::test_double", "failed"]
    assert "refused" in lines[2]
    assert last.startswith("3 patches: 1 fixed, 1 breaks, 1 refused; mean value 0.")
    alone = regrade("score", fix, "--repo", repo, "--fail-to-pass", FAILING)
    assert "patches:" not in alone.out
    assert "patches:" not in regrade("score", fix, breaks, "--repo", repo, "--fail-to-pass", FAILING, "--json").out


def test_damaged_evidence_is_noted(regrade, repo, fix, tmp_path, monkeypatch):
    monkeypatch.setenv("REGRADE_CACHE", str(tmp_path / "cache"))
    (before,) = score(regrade, fix, "--repo", repo, "--reward", "small_diff")
    database = sqlite3.connect(tmp_path / "cache" / "evidence.sqlite")
    assert database.execute("UPDATE evidence SET record = replace(record, '1', '7')").rowcount == 1
    database.commit()
    database.close()
    (after,) = score(regrade, fix, "--repo", repo, "--reward", "small_diff")
    assert after == {**before, "notes": [*before["notes"], "damaged records of stored evidence, gathered again: 1"]}


def test_if_every_patch_is_refused_no_test_runs(regrade, repo, tmp_path, monkeypatch):
    monkeypatch.setenv("REGRADE_CACHE", str(tmp_path / "own"))
    for name in ("one.diff", "other.diff"):
        (tmp_path / name).write_text(STALE)
    outcome = regrade("score", tmp_path / "one.diff", tmp_path / "other.diff", "--repo", repo)
    assert outcome.is_refusal("2 of 2 patches refused", "one.diff", "other.diff")
    assert not (tmp_path / "own" / "baselines").exists()


def test_a_missing_reward_model_is_reported_before_the_tests_run(regrade, repo, fix, tmp_path, monkeypatch):
    monkeypatch.setenv("REGRADE_CACHE", str(tmp_path / "own"))
    assert regrade("score", fix, "--repo", repo, "--reward", f"learned:{tmp_path}").is_refusal("holds no reward model")
    assert not (tmp_path / "own" / "baselines").exists()


def test_a_second_patch_for_explain_gets_advice(regrade, repo, fix, diff):
    other = diff("a * 2", "2 * a")
    asked = ("explain", fix, other, "--repo", repo)
    assert regrade(*asked).is_refusal("one patch", f"regrade score {fix} {other}")
    assert regrade(*asked, fix).is_refusal("one patch", f"regrade score {fix} {other}")
    assert regrade("explain", fix, "some-task", "--repo", repo).is_refusal("is not a run", "some-task")
    assert regrade("explain", repo, "one", "another").is_refusal("one attempt", "'one'", "'another'")


def test_standard_input_is_read_once(regrade, repo, fix):
    assert regrade("score", "-", "-", "--repo", repo, text=fix.read_text()).is_refusal("standard input", "once")


def test_a_diff_of_the_whole_repository_for_a_part_of_it(regrade, repo, fix):
    (repo / ".git").mkdir()
    told = regrade("score", fix, "--repo", repo / "calc")
    assert told.is_refusal("does not apply", f"paths start at '{repo}'", "git diff --relative")


def test_output_of_a_reward_does_not_mix_with_lines_of_json(regrade, repo, fix, tmp_path):
    (tmp_path / "loud.py").write_text(
        "from regrade.rewards import Diff, Score, reward\n\nprint('loaded')\n\n\n"
        "@reward\ndef loud(diff: Diff) -> Score:\n    print('called')\n    return Score(1.0)\n"
    )
    outcome = regrade("score", fix, "--repo", repo, "--reward", f"{tmp_path / 'loud.py'}:loud", "--json")
    assert json.loads(outcome.out)["value"] == 1.0
    assert {"loaded", "called"} <= set(outcome.err.splitlines())
    checked = regrade("rewards", "check", f"{tmp_path / 'loud.py'}:loud", "--json")
    assert all(json.loads(line)["rule"] for line in checked.out.splitlines())


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_virtual_environment_beside_javascript_need_not_hold_pytest(regrade, tmp_path):
    repo = tmp_path / "cart"
    (repo / "test").mkdir(parents=True)
    (repo / "package.json").write_text('{"name": "cart"}')
    (repo / "cart.js").write_text("exports.add = (a, b) => a + b\n")
    (repo / "test" / "cart.test.js").write_text(
        "const { add } = require('../cart.js')\n"
        "require('node:test')('adds', () => require('node:assert').equal(add(1, 2), 3))\n"
    )
    venv.create(repo / ".venv")
    (tmp_path / "empty.diff").write_text("")
    (found,) = score(regrade, tmp_path / "empty.diff", "--repo", repo, "--reward", "tests")
    assert found["value"] == 1.0


@pytest.mark.usefixtures("repo")
def test_a_task_names_its_own_tests(regrade, fix, tmp_path):
    task = {"id": "add", "instruction": "mend add", "repository": "repo", "fail_to_pass": [FAILING]}
    (tmp_path / "tasks.json").write_text(json.dumps(task))
    asked = ("score", fix, "--tasks", tmp_path / "tasks.json", "--fail-to-pass", FAILING)
    assert regrade(*asked).is_refusal("--fail-to-pass", "a task names its own tests")


@pytest.mark.slow
@pytest.mark.usefixtures("repo")
def test_requirements_without_pytest_are_named(regrade, fix, tmp_path):
    wheel = tmp_path / "nothing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        about = "nothing-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    wanted = f"nothing @ {wheel.as_uri()}"
    task = {"instruction": "x", "repository": "repo", "fail_to_pass": [FAILING], "requirements": [wanted]}
    (tmp_path / "tasks.json").write_text(json.dumps(task))
    told = ("install no importable pytest", wanted, "`requirements` in the task's file")
    assert regrade("score", fix, "--tasks", tmp_path / "tasks.json").is_refusal(*told)
    assert regrade("tasks", "validate", tmp_path / "tasks.json").is_refusal(*told)


@pytest.mark.parametrize("device", ["/dev/full", "/dev/zero"])
def test_a_device_is_no_patch(regrade, repo, device):
    assert regrade("score", device, "--repo", repo).is_refusal(device, "is a device", "give a file")
