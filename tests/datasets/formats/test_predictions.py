"""Predictions in SWE-bench's three layouts, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.formats.predictions import read_predictions
from regrade.datasets.patches import Patch

DIFF = Patch.between({"a.py": "x = 1\n"}, {"a.py": "x = 2\n"}).text


def entry(instance: str, patch: str | None = DIFF, model: str = "agent") -> dict[str, object]:
    return {"instance_id": instance, "model_name_or_path": model, "model_patch": patch}


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


@pytest.mark.parametrize("name", ["preds.json", "preds.jsonl"])
@pytest.mark.parametrize("layout", ["lines", "list", "keyed"])
def test_the_layouts_are_told_by_content_not_by_name(tmp_path: Path, layout: str, name: str) -> None:
    entries = [entry("a"), entry("b", None), entry("c", "", "other")]
    path = tmp_path / name
    if layout == "lines":
        write(path, *entries)
    else:
        keyed = {each["instance_id"]: {k: v for k, v in each.items() if k != "instance_id"} for each in entries}
        path.write_text(json.dumps(entries if layout == "list" else keyed, indent=2))
    found = {each.model: dict(each.patches) for each in read_predictions([path]).models}
    assert found == {"agent": {"a": Patch(DIFF), "b": Patch("")}, "other": {"c": Patch("")}}


def test_a_newline_that_was_stripped_off_is_put_back(tmp_path: Path) -> None:
    path = write(tmp_path / "preds.jsonl", entry("a", DIFF.rstrip("\n")), entry("b", " \n"))
    (found,) = read_predictions([path]).models
    assert found.patches["a"].plain.text == Patch(DIFF).plain.text == DIFF
    assert found.patches["b"].is_empty


def test_each_mistake_is_one_line_and_the_other_entries_are_used(tmp_path: Path) -> None:
    other = DIFF.replace("2", "3")
    path = write(
        tmp_path / "preds.jsonl",
        entry("a"),
        '{"instance_id": "b", "model_na',
        entry("a"),
        {"instance_id": "c", "model_patch": DIFF},
        entry("d"),
        entry("d", other),
        {**entry("e"), "model_patch": 7},
        "[1]",
        {**entry("f"), "model_patch": "\ud800"},
        entry("unknown"),
    )
    found = read_predictions([path])
    (model,) = found.models
    assert dict(model.patches) == {"a": Patch(DIFF), "unknown": Patch(DIFF)}
    assert list(model.doubtful) == ["d"]
    told = list(found.problems(["a", "b", "d"]))
    assert all("\n" not in line for line in told)
    for place, words in [
        (":2", "not JSON"),
        (":4", "'model_name_or_path' must be a non-empty string; the key is missing"),
        (":7", "'model_patch' must be a string or null; found 7"),
        (":8", "expected a JSON object, found [1]"),
        (":9", "surrogate"),
        (":3", "already has a prediction for 'a' at " + str(path) + ":1, which is equal"),
        (":6", "which differs"),
    ]:
        assert sum(line.startswith(f"{path}{place}: ") and words in line for line in told) == 1, (place, told)
    assert "agent: 'unknown' is none of the 3 tasks, and is ignored" in told
    assert [line for line in told if line.startswith("agent: no prediction")] == [
        "agent: no prediction for task 'b', which is unscored, because an unreadable entry may be its prediction"
    ]
    assert len(told) == 9


def test_a_missing_prediction_of_a_whole_file_counts_as_no_change(tmp_path: Path) -> None:
    found = read_predictions([write(tmp_path / "a.jsonl", entry("a")), write(tmp_path / "b.jsonl", entry("b"))])
    assert list(found.problems(["a", "b", "c"])) == [
        "agent: no prediction for task 'c', which counts as a patch that changes nothing"
    ]


def test_a_file_for_another_set_of_tasks_is_told_in_two_lines(tmp_path: Path) -> None:
    found = read_predictions([write(tmp_path / "a.jsonl", *(entry(f"django-{n:03}") for n in range(500)))])
    tasks = [f"task-{n:03}" for n in range(200)]
    assert list(found.problems(tasks)) == [
        "agent: 500 predictions, such as the one for 'django-000', are for none of the 200 tasks, and are ignored",
        "agent: no prediction for 200 of the 200 tasks, such as 'task-000'; each of them counts as a patch that changes nothing",
    ]


def test_predictions_for_other_tasks_are_refused(tmp_path: Path) -> None:
    """They became as many attempts that change nothing."""
    foreign = [entry(f"django-{n:03}") for n in range(500)]
    tasks = [f"task-{n:03}" for n in range(200)]
    found = read_predictions([write(tmp_path / "a.jsonl", *foreign)])
    with pytest.raises(UserError, match=r"a.jsonl: 500 of 500 ids of 'agent', such as 'django-000', are none of the"):
        found.check_known(tasks)
    some = read_predictions([write(tmp_path / "b.jsonl", *foreign, *(entry(name) for name in tasks[:50]))])
    with pytest.raises(UserError, match="500 of 550 ids"):
        some.check_known(tasks)
    for instances in (tasks, tasks[:3], [*tasks, *(f"more-{n}" for n in range(300))]):
        read_predictions([write(tmp_path / "c.jsonl", *map(entry, instances))]).check_known(tasks)


def test_two_files_of_one_model_that_differ_are_two_policies(tmp_path: Path) -> None:
    """They were one policy, with every task that differs unscored."""
    other = DIFF.replace("2", "3")
    paths = [tmp_path / name / "preds.jsonl" for name in ("first", "second")]
    for path, patch in zip(paths, (DIFF, other), strict=True):
        path.parent.mkdir()
        write(path, entry("a", patch), entry("b"))
    found = read_predictions(paths)
    assert [model.model for model in found.models] == ["agent (first/preds.jsonl)", "agent (second/preds.jsonl)"]
    assert [model.patches["a"] for model in found.models] == [Patch(DIFF), Patch(other)]
    assert [line for line in found.doubled if "differ at 1 task, such as 'a': each file is a policy" in line]
    write(paths[1], entry("a"), entry("c"))
    (whole,) = read_predictions(paths).models
    assert (whole.model, set(whole.patches)) == ("agent", {"a", "b", "c"})


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "they are empty"), ("{}", "they are empty"), ("[", "not JSON"), ("nonsense", "not JSON"), ('"a"', "object")],
)
def test_a_file_without_predictions_is_a_user_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "preds.json").write_text(text)
    with pytest.raises(UserError, match=words):
        read_predictions([tmp_path / "preds.json"])
    with pytest.raises(UserError, match="cannot read"):
        read_predictions([tmp_path / "none.json"])
