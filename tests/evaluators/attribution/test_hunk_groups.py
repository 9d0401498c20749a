"""Groups of hunks that apply and parse by themselves, with the reason for each group."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.hunks import Hunk, split_patch
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.attribution.hunk_groups import HunkGroup, Places, coarser, hunk_groups, sound_groups
from regrade.evaluators.static.syntax import compile_error

GAP = "\n" * 8
PIECES = ("def f(x):\n", "    x += 1\n", "    return x\n")
GUARDED = ("def f(x):\n    try:\n", "        x += 1\n", "        return x\n    except ValueError:\n        return 0\n")


def task_of(tmp_path: Path, files: dict[str, str]) -> Task:
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return Task(id="t", repository="r", base=Tree(tmp_path), instruction="", fail_to_pass=(), pass_to_pass=())


def groups_of(tmp_path: Path, before: dict[str, str], after: dict[str, str]) -> tuple[list[list[int]], list[str]]:
    patch = Patch.between(before, after)
    found, small = hunk_groups(task_of(tmp_path, before), split_patch(patch))
    assert small == found
    return [sorted(group.places) for group in found], [group.why for group in found]


def test_hunks_that_only_compile_together_are_one_group(tmp_path: Path) -> None:
    tail = f"{GAP}a = 1\n{GAP}b = 2\n"
    before = {"m.py": GAP.join(PIECES) + tail}
    after = {"m.py": GAP.join(GUARDED) + tail.replace("1", "3").replace("2", "4")}
    places, reasons = groups_of(tmp_path, before, after)
    assert places == [[0, 1, 2], [3], [4]]
    assert "does not parse (m.py:" in reasons[0]
    assert reasons[1:] == ["", ""]


def test_each_hunk_of_a_file_that_never_parses_is_a_group(tmp_path: Path) -> None:
    sound, broken = f"a = 1\n{GAP}b = 2\n{GAP}c = 3\n", f"a = (\n{GAP}b = 2\n{GAP}c = 3\n"
    more = {"n.py": "x = 1\n"}
    for number, (before, after) in enumerate(((sound, broken), (broken, sound))):
        after = after.replace("b = 2", "b = 5")
        found, _ = groups_of(tmp_path / str(number), {"m.py": before} | more, {"m.py": after, "n.py": "x = 2\n"})
        assert found == [[0], [1], [2]]


def test_other_languages_are_parsed_as_well(tmp_path: Path) -> None:
    before = {"m.js": f"const a = 1;\n{GAP}const b = 2;\n{GAP}const c = 3;\n"}
    after = {"m.js": f"if (true) {{\nconst a = 1;\n{GAP}const b = 2;\n}}\n{GAP}const c = 4;\n"}
    places, reasons = groups_of(tmp_path, before, after)
    assert places == [[0, 1], [2]]
    assert "m.js" in reasons[0]


def test_a_file_in_place_of_a_folder_is_grouped_with_the_removal_of_the_folder(tmp_path: Path) -> None:
    before = {"thing": "x\n", "other.txt": "1\n"}
    after = {"thing/a.txt": "y\n", "other.txt": "2\n"}
    places, reasons = groups_of(tmp_path, before, after)
    assert places == [[0], [1, 2]]
    assert "do not apply" in reasons[1]
    assert "'thing' is a file" in reasons[1]


def test_entries_about_one_file_are_one_group(tmp_path: Path) -> None:
    one, two, three = (f"a = {a}\n{GAP}b = {b}\n{GAP}c = {c}\n" for a, b, c in ((1, 1, 1), (2, 1, 2), (2, 2, 2)))
    patch = Patch(Patch.between({"m.py": one}, {"m.py": two}).text + Patch.between({"m.py": two}, {"m.py": three}).text)
    (group,), _ = hunk_groups(task_of(tmp_path, {"m.py": one}), split_patch(patch))
    assert group.places == {0, 1, 2}
    assert "several entries" in group.why


def test_a_patch_that_does_not_apply_is_an_error(tmp_path: Path) -> None:
    task = task_of(tmp_path, {"m.py": "a = 1\n"})
    with pytest.raises(PatchError, match=r"does not apply.*m\.py"):
        hunk_groups(task, split_patch(Patch.between({"m.py": "b = 1\n"}, {"m.py": "b = 2\n"})))
    assert hunk_groups(task, split_patch(Patch(""))) == ([], [])


@pytest.mark.slow
def test_of_two_hundred_hunks_neighbours_are_joined(tmp_path: Path) -> None:
    text = "".join(f"v{number} = {number}\n" for number in range(2000))
    changed = "".join(f"v{number} = {number}{' + 1' * (number % 10 == 5)}\n" for number in range(2000))
    split = split_patch(Patch.between({"m.py": text}, {"m.py": changed}))
    found, small = hunk_groups(task_of(tmp_path, {"m.py": text}), split, most=21)
    assert (len(split.hunks), len(small), len(found)) == (200, 200, 21)
    assert sorted(place for group in found for place in group.places) == list(range(200))
    assert all(max(group.places) - min(group.places) == len(group.places) - 1 for group in found), "neighbours"
    assert max(len(group.places) for group in found) <= 16
    assert {group.why for group in found} == {"there are too many groups for the budget"}


def hunks_of(*paths: str) -> list[Hunk]:
    return [Hunk(path=path, what="", line=1, added=1, removed=0, text="") for path in paths]


def test_hunks_of_one_file_are_joined_before_those_of_two() -> None:
    hunks = hunks_of("a", "a", "b", "b", "c")
    groups = [HunkGroup(frozenset({place})) for place in range(5)]
    assert [sorted(group.places) for group in coarser(groups, 3, hunks)] == [[0, 1], [2, 3], [4]]
    assert len(coarser(groups, 1, hunks)) == 1


@given(st.data())
def test_up_to_six_groups_every_union_is_sound(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 6))
    bad = [frozenset(each) for each in data.draw(st.lists(st.sets(st.integers(0, n - 1), min_size=1), max_size=5))]
    bad = [each for each in bad if len(each) < n]

    def problem(places: Places) -> str:
        return "bad" if places in bad else ""

    hunks = hunks_of(*data.draw(st.lists(st.sampled_from("ab"), min_size=n, max_size=n)))
    groups = sound_groups([HunkGroup(frozenset({place})) for place in range(n)], problem, hunks)
    assert sorted(place for group in groups for place in group.places) == list(range(n))
    for size in range(1, len(groups)):
        for chosen in combinations(groups, size):
            assert not problem(frozenset().union(*(group.places for group in chosen)))
    if not bad:
        assert len(groups) == n
    assert all(bool(group.why) == (len(group.places) > 1) for group in groups)


def test_the_pieces_used_here_are_what_they_are_said_to_be() -> None:
    assert compile_error(GAP.join(PIECES), "m.py") is None
    assert compile_error(GAP.join(GUARDED), "m.py") is None
