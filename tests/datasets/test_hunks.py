"""A patch taken apart: what each subset makes of the files, by git's own applying, line numbers included."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.applying import apply_patch
from regrade.datasets.hunks import Hunk, split_patch
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.workspaces import prepare

BEFORE = [f"line {number}" for number in range(1, 81)]
EDITS = {5: ["five", "and a half"], 25: [], 45: ["forty-five"], 78: ["seventy-eight", "", "the end"]}
"""Line number -> what stands in its place; far enough from each other for hunks of their own."""


def edited(chosen: set[int]) -> str:
    lines = [new for number, old in enumerate(BEFORE, 1) for new in (EDITS[number] if number in chosen else [old])]
    return "\n".join(lines) + "\n"


def git(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e", *arguments], cwd=folder, check=True, capture_output=True
    )
    return done.stdout.decode()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    for name in ("a.txt", "b.txt", "moved.txt", "gone.txt", "tool.sh"):
        (root / name).write_text(edited(set()) if name != "gone.txt" else "gone\n")
    git("init", "-q", folder=root)
    git("add", "-A", folder=root)
    git("commit", "-qm", "base", folder=root)
    return root


def after(root: Path, patch: Patch) -> dict[str, str]:
    """The files with the patch applied as a scorer applies it."""
    tree = prepare(
        Task(id="t", repository="r", base=Tree(root), instruction="", fail_to_pass=(), pass_to_pass=()), patch
    ).after
    return {path: tree.read(path) for path in tree.paths()}


def test_every_subset_of_hunks_changes_its_own_lines_and_no_others(repo: Path) -> None:
    before = {"a.txt": edited(set())}
    patch = Patch.between(before, {"a.txt": edited(set(EDITS))})
    split = split_patch(patch)
    assert [hunk.line for hunk in split.hunks] == list(EDITS)
    assert [(hunk.added, hunk.removed) for hunk in split.hunks] == [(2, 1), (0, 1), (1, 1), (3, 1)]
    for size in range(len(EDITS) + 1):
        for chosen in combinations(range(len(EDITS)), size):
            wanted = edited({list(EDITS)[place] for place in chosen})
            assert after(repo, split.subset(chosen))["a.txt"] == wanted
            assert split.subset(chosen).text == "" if not chosen else True


def test_a_subset_is_what_would_have_been_written_for_it() -> None:
    whole = split_patch(Patch.between({"a.txt": edited(set())}, {"a.txt": edited(set(EDITS))}))
    part = Patch.between({"a.txt": edited(set())}, {"a.txt": edited({25, 78})})
    assert whole.subset([1, 3]).text == part.text, "line numbers after the patch are those without the other hunks"
    assert whole.subset(range(4)) is whole.patch
    assert whole.subset([1, 3]).digest == split_patch(whole.patch).subset([3, 1]).digest


def test_files_that_come_go_move_and_change_their_mode_are_pieces(repo: Path) -> None:
    (repo / "a.txt").write_text(edited({5, 45}))
    (repo / "new.txt").write_text("new")
    (repo / "gone.txt").unlink()
    (repo / "moved.txt").rename(repo / "there.txt")
    (repo / "there.txt").write_text(edited({25, 78}))
    (repo / "tool.sh").chmod(0o755)
    git("add", "-A", folder=repo)
    patch = Patch(git("diff", "--cached", "-M", folder=repo))
    git("reset", "-q", "--hard", folder=repo)
    split = split_patch(patch)
    names = [hunk.name for hunk in split.hunks]
    assert names == [
        "a.txt:5", "a.txt:45", "gone.txt (deleted file)", "new.txt (new file)", "there.txt (renamed from moved.txt)",
        "there.txt:25", "there.txt:78", "tool.sh (mode of the file)",
    ]  # fmt: skip
    assert after(repo, split.subset(range(len(names)))) == after(repo, patch)
    assert after(repo, split.subset([5]))["moved.txt"] == edited({25}), "an edit without the renaming"
    renamed = after(repo, split.subset([4, 6]))
    assert renamed["there.txt"] == edited({78})
    assert "moved.txt" not in renamed
    both = after(repo, split.subset([2, 3]))
    assert both["new.txt"] == "new"
    assert "gone.txt" not in both
    assert both["a.txt"] == edited(set())
    for place in range(len(names)):
        after(repo, split.subset([place]))
        after(repo, split.subset(set(range(len(names))) - {place}))


def test_a_binary_file_is_one_piece(repo: Path) -> None:
    (repo / "a.txt").write_text(edited({5, 45}))
    (repo / "dot.bin").write_bytes(bytes(range(256)) * 4)
    git("add", "-A", folder=repo)
    patch = Patch(git("diff", "--cached", "--binary", folder=repo))
    git("reset", "-q", "--hard", folder=repo)
    split = split_patch(patch)
    assert [hunk.name for hunk in split.hunks] == ["a.txt:5", "a.txt:45", "dot.bin (new file)"]
    assert after(repo, split.subset([2])).keys() - after(repo, Patch("")).keys() == {"dot.bin"}
    assert after(repo, split.subset([0, 2]))["a.txt"] == edited({5})
    assert "dot.bin" not in after(repo, split.subset([1]))


def test_a_plain_diff_and_one_that_lacks_its_last_newline_are_taken_apart_too(repo: Path) -> None:
    text = Patch.between({"a.txt": edited(set())}, {"a.txt": edited({5, 45})}).text
    plain = text.replace("diff --git a/a.txt b/a.txt\n", "").replace("--- a/", "--- ").replace("+++ b/", "+++ ")
    for given_text in (plain, plain.removesuffix("\n"), text.removesuffix("\n")):
        split = split_patch(Patch(given_text))
        assert [hunk.name for hunk in split.hunks] == ["a.txt:5", "a.txt:45"]
        for place, line in enumerate((5, 45)):
            assert after(repo, split.subset([place]))["a.txt"] == edited({line})
    new = split_patch(
        Patch(
            "--- /dev/null\n+++ b/x.txt\n@@ -0,0 +1,1 @@\n+x\n--- a/gone.txt\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-gone\n"
        )
    )
    assert [hunk.name for hunk in new.hunks] == ["x.txt (new file)", "gone.txt (deleted file)"]
    assert after(repo, new.subset([0]))["x.txt"] == "x\n"
    assert "gone.txt" not in after(repo, new.subset([1]))


def test_names_in_quotes_are_names_like_others(repo: Path) -> None:
    (repo / "a.txt").rename(repo / "\u00e4.txt")
    (repo / "moved.txt").rename(repo / "o\u00f6.txt")
    git("add", "-A", folder=repo)
    git("commit", "-qm", "names", folder=repo)
    (repo / "\u00e4.txt").write_text(edited({5, 45}))
    (repo / "o\u00f6.txt").unlink()
    (repo / "n\u00fc.txt").write_text(edited({78}))
    git("add", "-A", folder=repo)
    patch = Patch(git("diff", "--cached", "-M", folder=repo))
    git("reset", "-q", "--hard", folder=repo)
    assert '"a/' in patch.text
    split = split_patch(patch)
    names = ["n\u00fc.txt (renamed from o\u00f6.txt)", "n\u00fc.txt:78", "\u00e4.txt:5", "\u00e4.txt:45"]
    assert [hunk.name for hunk in split.hunks] == names
    assert after(repo, split.subset([3]))["\u00e4.txt"] == edited({45})
    assert after(repo, split.subset([1]))["o\u00f6.txt"] == edited({78})
    assert after(repo, split.subset([0]))["n\u00fc.txt"] == edited(set())
    assert split.inseparable == ()


def test_entries_about_one_file_cannot_be_told_apart() -> None:
    first = Patch.between({"a.txt": edited(set())}, {"a.txt": edited({5})}).text
    second = Patch.between({"a.txt": edited({5})}, {"a.txt": edited({5, 45})}).text
    other = Patch.between({"b.txt": edited(set())}, {"b.txt": edited({5})}).text
    split = split_patch(Patch(first + other + second))
    assert split.inseparable == (frozenset({0, 2}),)
    assert split_patch(Patch(first + other)).inseparable == ()


def test_the_empty_patch_has_no_hunks_and_text_that_is_no_patch_says_so() -> None:
    assert split_patch(Patch("")).hunks == ()
    assert split_patch(Patch("\n")).subset([]).text == "\n"
    with pytest.raises(PatchError, match="unified diff"):
        split_patch(Patch("no diff\n"))


@given(st.data())
def test_the_hunks_of_any_subset_are_those_that_were_chosen(data: st.DataObject) -> None:
    lines = data.draw(st.lists(st.sampled_from(["a", "b", "-- c", "", "++ d", "@@ e"]), min_size=1, max_size=60))
    changed = [
        new
        for line in lines
        for new in data.draw(st.sampled_from([[line]] * 6 + [[], ["new"], [line, "new"], ["\\ f"]]))
    ]
    before, now = ("".join(f"{line}\n" for line in each) for each in (lines, changed))
    split = split_patch(Patch.between({"a": before}, {"a": now}))
    places = range(len(split.hunks))
    chosen = sorted(data.draw(st.sets(st.sampled_from(places)))) if split.hunks else []
    part = split_patch(split.subset(chosen))

    def bodies(hunks: Iterable[Hunk]) -> list[list[str]]:
        return [hunk.text.splitlines()[1:] for hunk in hunks]

    assert bodies(part.hunks) == bodies(split.hunks[place] for place in chosen)


@given(st.data())
def test_a_hunk_is_taken_apart_wherever_a_line_stays(data: st.DataObject) -> None:
    lines = [f"line {number}" for number in range(data.draw(st.integers(1, 25)))]
    new = {
        number: [f"new {number}.{count}" for count in range(data.draw(st.integers(0, 2)))]
        for number in range(len(lines))
    }
    edited = sorted(data.draw(st.sets(st.integers(0, len(lines) - 1), min_size=1)))
    runs = [[edited[0]]]
    for number in edited[1:]:
        if number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    end = data.draw(st.sampled_from(["", "\n"]))
    if not end and not new[len(lines) - 1]:
        new[len(lines) - 1] = ["new end"]  # else the line before it would lose its newline, and change as well

    def text(chosen: set[int]) -> str:
        kept = [each for number, line in enumerate(lines) for each in (new[number] if number in chosen else [line])]
        return "\n".join(kept) + (end if kept else "")

    patch = Patch.between({"a": text(set())}, {"a": text(set(edited))})
    if patch.files[0].is_deleted or not text(set(edited)):
        return
    split = split_patch(patch, fine=True)
    chosen = data.draw(st.sets(st.sampled_from(range(len(runs)))))
    wanted = text({number for place in chosen for number in runs[place]})
    tree = Tree(Path("/nowhere"), replaced={"a": text(set())})
    assert len(split.hunks) == len(runs)
    assert apply_patch(tree, split.subset(chosen)).read("a") == wanted
    assert [hunk.removed for hunk in split.hunks] == [len(run) for run in runs]


def test_changes_of_one_hunk_are_applied_by_git_one_by_one(repo: Path) -> None:
    def close(chosen: set[int]) -> str:
        return edited(set()).replace("line 10\n", "ten\n" if 0 in chosen else "line 10\n").replace(
            "line 12\n", "line 12\ntwelve\n" if 1 in chosen else "line 12\n"
        ).replace("line 14\n", "" if 2 in chosen else "line 14\n")  # fmt: skip

    patch = Patch.between({"a.txt": close(set())}, {"a.txt": close({0, 1, 2})})
    assert len(split_patch(patch).hunks) == 1
    split = split_patch(patch, fine=True)
    assert [hunk.name for hunk in split.hunks] == ["a.txt:10", "a.txt:13", "a.txt:14"]
    for size in range(4):
        for chosen in combinations(range(3), size):
            assert after(repo, split.subset(chosen))["a.txt"] == close(set(chosen))
    assert split.hunks[1].text.count("\n+") == 1
    assert "-line" not in split.hunks[1].text
