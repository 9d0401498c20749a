"""One patch, one answer: each form of a patch has the same outcome in every command and interface, and the one that
`git apply` gives, but for the repairs of docs/patches.md."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import zlib
from pathlib import Path

import pytest

from regrade.cli.jobs import ScoreRequest, score_files
from regrade.datasets import applying
from regrade.datasets.applying import DOES_NOT_APPLY, apply_patch, notes_on
from regrade.datasets.formats.predictions import read_predictions
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.sandboxes.scratch import NAME
from regrade.evaluators.scoring.ray_scorer import NodeScorer
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.attempts import judge
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD
from regrade.policy_training.policies.task_descriptions import ChatPrompt
from regrade.rewards import resolved
from regrade.rewards.evidence import End
from regrade.rewards.evidence import TestRun as RunOfTests

FAILING = "tests/test_cart.py::test_count"
CART = '"""A cart."""\n\n\ndef count(items):\n    """How many."""\n    return len(items) + 1\n\n\ndef first(items):\n    """The first one."""\n    return items[0]\n'
FIXED = CART.replace("len(items) + 1", "len(items)")
TEST = "from shop.cart import count, first\n\n\ndef test_count():\n    assert count([1, 2]) == 2\n\n\ndef test_first():\n    assert first([1, 2]) == 1\n"
FILES = {
    "shop/__init__.py": "",
    "shop/cart.py": CART,
    "tests/test_cart.py": TEST,
    "shop/crlf.py": "a = 1\r\nb = 2\r\nc = 3\r\n",
    "a b/a b/x y.txt": "in a b\n",
    "a/shop/cart.py": "another\n",
    'quote"d \\.txt': "quoted\n",
    "caf\u00e9 .txt": "menu\n",
    "logo.bin": "\0\1",
}
BODY = (
    '@@ -3,7 +3,7 @@\n \n def count(items):\n     """How many."""\n-    return len(items) + 1\n+    return len(items)\n'
    " \n \n def first(items):\n"
)
SHORT = (
    '@@ -4,3 +4,3 @@\n def count(items):\n     """How many."""\n-    return len(items) + 1\n+    return len(items)\n'
)
ENDS_BLANK = '@@ -4,5 +4,5 @@\n def count(items):\n     """How many."""\n-    return len(items) + 1\n+    return len(items)\n \n \n'


def header(old: str = "a/shop/cart.py", new: str = "b/shop/cart.py") -> str:
    return f"--- {old}\n+++ {new}\n"


def git_header(old: str = "a/shop/cart.py", new: str = "b/shop/cart.py") -> str:
    return f"diff --git {old} {new}\n{header(old, new)}"


def blob(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def literal(content: bytes) -> str:
    """A file's content as `git diff --binary` prints it."""
    packed = zlib.compress(content)
    lines = f"literal {len(content)}\n"
    for start in range(0, len(packed), 52):
        piece = packed[start : start + 52]
        length = chr(ord("A") + len(piece) - 1) if len(piece) <= 26 else chr(ord("a") + len(piece) - 27)
        padded = piece + b"\0" * (-len(piece) % 4)
        lines += length + base64.b85encode(padded).decode() + "\n"
    return lines


def binary(path: str, content: bytes) -> str:
    """A new file as `git diff --binary` prints it."""
    return (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\nindex {'0' * 40}..{blob(content)}\nGIT binary patch\n"
        f"{literal(content)}\nliteral 0\nHcmV?d00001\n\n"
    )


def no_data(path: str) -> str:
    return f"diff --git a/{path} b/{path}\nnew file mode 100644\nindex 0000000..1234567\nBinary files /dev/null and b/{path} differ\n"


PLAIN = git_header() + BODY
NEW = "diff --git a/shop/new.py b/shop/new.py\nnew file mode 100644\n--- /dev/null\n+++ b/shop/new.py\n@@ -0,0 +1 @@\n+x = 1\n"
MAIL = f"From 1234 Mon Sep 17 00:00:00 2001\nFrom: A <a@b.c>\nSubject: [PATCH] Fix\n\n--- a rule ---\n+++ more\n---\n shop/cart.py | 2 +-\n\n{PLAIN}-- \n2.39.5\n\n"
ATTACHED = (
    "From 1234 Mon Sep 17 00:00:00 2001\nFrom: A <a@b.c>\nSubject: [PATCH] Fix\nMIME-Version: 1.0\n"
    'Content-Type: multipart/mixed; boundary="------------2.39.5"\n\n--------------2.39.5\n'
    "Content-Type: text/plain; charset=UTF-8\n\n- a list\n---\n shop/cart.py | 2 +-\n\n--------------2.39.5\n"
    f'Content-Type: text/x-patch; name="0001-Fix.patch"\n\n{PLAIN}\n--------------2.39.5--\n\n\n'
)
SPACES = (
    "diff --git a/a b/a b/x y.txt b/a b/a b/x y.txt\n--- a/a b/a b/x y.txt\t\n+++ b/a b/a b/x y.txt\t\n@@ -1 +1 @@\n"
    "-in a b\n+edited\n"
)
LOGO = b"\0\1"
MERGE = "diff --cc shop/cart.py\nindex 1,2..3\n--- a/shop/cart.py\n+++ b/shop/cart.py\n@@@ -1,1 -1,1 +1,1 @@@\n- x\n -y\n++z\n"
EPOCH = "1970-01-01 01:00:00.000000000 +0100"
SWAPPED = (
    "diff --git a/a/shop/cart.py b/shop/crlf.py\nsimilarity index 100%\nrename from a/shop/cart.py\nrename to shop/crlf.py\n"
    "diff --git a/shop/crlf.py b/a/shop/cart.py\nsimilarity index 100%\nrename from shop/crlf.py\nrename to a/shop/cart.py\n"
)
PYC = "shop/__pycache__/cart.cpython-311.pyc"

FORMS: dict[str, tuple[str, str]] = {
    # name: (text, "fix": as by git, "repair": git refuses it as it is, "refused": not applied, "nothing": no change)
    "git": (PLAIN, "fix"),
    "mnemonic i w": (git_header("i/shop/cart.py", "w/shop/cart.py") + BODY, "fix"),
    "mnemonic c i": (git_header("c/shop/cart.py", "i/shop/cart.py") + BODY, "fix"),
    "mnemonic o w": (git_header("o/shop/cart.py", "w/shop/cart.py") + BODY, "fix"),
    "mnemonic 1 2": (header("1/shop/cart.py", "2/shop/cart.py") + BODY, "fix"),
    "other prefixes": (git_header("before/shop/cart.py", "after/shop/cart.py") + BODY, "fix"),
    "no prefix, git": (git_header("shop/cart.py", "shop/cart.py") + BODY, "repair"),
    "a prefix of the new name alone": (git_header("shop/cart.py", "new/shop/cart.py") + BODY, "refused"),
    "no prefix, diff": (header("shop/cart.py", "shop/cart.py") + BODY, "repair"),
    "one prefix twice": (header("x/shop/cart.py", "x/shop/cart.py") + BODY, "fix"),
    "orig": (header("a/shop/cart.py.orig") + BODY, "fix"),
    "orig without prefix": (header("shop/cart.py.orig", "shop/cart.py") + BODY, "repair"),
    "suffix of the new name": (header(new="b/shop/cart.py.new") + BODY, "fix"),
    "times after a tab": (header("a/shop/cart.py\t2026-01-01 10:00:00.000 +0100", "b/shop/cart.py\t2026-01-01") + BODY, "fix"),
    "quoted names": (header('"a/shop/cart\\056py"', '"b/shop/cart\\056py"') + BODY, "fix"),
    "mail": (MAIL, "fix"),
    "fence": (f"Here is the fix:\n\n```diff\n{PLAIN}```\nIt works.\n", "fix"),
    "fence without git's line": (f"```diff\n{header()}{BODY}```", "fix"),
    "text after": (f"{PLAIN}\n- it fixes the count\n- nothing else\n", "fix"),
    "no newline at the end": (PLAIN.rstrip("\n"), "repair"),
    "stripped with blank lines": ((git_header() + ENDS_BLANK).strip(), "repair"),
    "no newline, short": ((header() + SHORT.replace("@@ -4,3 +4,3 @@", "@@ -4,4 +4,4 @@") + " \n").rstrip(), "repair"),
    "CR LF": (PLAIN.replace("\n", "\r\n"), "repair"),
    "CR LF on a file with CR LF": (
        "--- a/shop/crlf.py\n+++ b/shop/crlf.py\n@@ -1,3 +1,3 @@\n a = 1\r\n-b = 2\r\n+b = 5\r\n c = 3\r\n" + PLAIN, "fix"
    ),
    "CR stripped": (
        "--- a/shop/crlf.py\n+++ b/shop/crlf.py\n@@ -1,3 +1,3 @@\n a = 1\n-b = 2\n+b = 5\n c = 3\n" + PLAIN, "refused"
    ),
    "-U0": (git_header() + "@@ -6 +6 @@ def count(items):\n-    return len(items) + 1\n+    return len(items)\n", "repair"),
    "-U0 at another line": (header() + "@@ -7 +7 @@\n-    return len(items) + 1\n+    return len(items)\n", "refused"),
    "blank lines stripped": (PLAIN.replace("\n \n", "\n\n").replace("\n \n", "\n\n"), "fix"),
    "two mails": (MAIL + MAIL.replace(PLAIN, NEW), "fix"),
    "too few counted": (git_header() + BODY.replace("-3,7 +3,7", "-3,4 +3,3"), "repair"),
    "too many counted": (git_header() + BODY.replace("-3,7 +3,7", "-3,9 +3,9"), "repair"),
    "a line without a sign": (git_header() + BODY.replace(" \n def first", "oops\n def first"), "refused"),
    "a hunk without a header": (BODY, "refused"),
    "cache": (binary(PYC, bytes(range(200))) + PLAIN, "fix"),
    "cache without data": (PLAIN + no_data(PYC), "repair"),
    "compiled without a source": (binary("shop/extra.pyc", bytes(range(9))) + PLAIN, "fix"),
    "only a cache": (binary(PYC, bytes(range(200))), "nothing"),
    "binary without data": (PLAIN + no_data("shop/logo.png"), "refused"),
    "nowhere on both sides": (header("/dev/null", "/dev/null") + BODY, "refused"),
    "a link": ("diff --git a/shop/l.py b/shop/l.py\nnew file mode 120000\n--- /dev/null\n+++ b/shop/l.py\n@@ -0,0 +1 @@\n+cart.py\n\\ No newline at end of file\n", "refused"),
    "a submodule": ("diff --git a/sub b/sub\nnew file mode 160000\nindex 0000000..1234567\n--- /dev/null\n+++ b/sub\n@@ -0,0 +1 @@\n+Subproject commit 1234567\n", "refused"),
    "mode": ("diff --git a/shop/cart.py b/shop/cart.py\nold mode 100644\nnew mode 100755\n" + header() + BODY, "fix"),
    "stale": (git_header() + BODY.replace("How many", "The number"), "refused"),
    "attached": (ATTACHED, "fix"),
    "spaces that look like prefixes": (PLAIN + SPACES, "fix"),
    "quotes and backslashes": (PLAIN + 'diff --git "a/quote\\"d \\\\.txt" "b/quote\\"d \\\\.txt"\n--- "a/quote\\"d \\\\.txt"\n+++ "b/quote\\"d \\\\.txt"\n@@ -1 +1 @@\n-quoted\n+q\n', "fix"),
    "letters beyond ASCII, quoted": (PLAIN + 'diff --git "a/caf\\303\\251 .txt" "b/caf\\303\\251 .txt"\n--- "a/caf\\303\\251 .txt"\n+++ "b/caf\\303\\251 .txt"\n@@ -1 +1 @@\n-menu\n+m\n', "fix"),
    "letters beyond ASCII": (PLAIN + "diff --git a/caf\u00e9 .txt b/caf\u00e9 .txt\n--- a/caf\u00e9 .txt\t\n+++ b/caf\u00e9 .txt\t\n@@ -1 +1 @@\n-menu\n+m\n", "fix"),
    "names swapped": (PLAIN + SWAPPED, "fix"),
    "a file twice": (PLAIN + header() + "@@ -9,3 +9,4 @@ def count(items):\n def first(items):\n     \"\"\"The first one.\"\"\"\n     return items[0]\n+\n", "fix"),
    "svn": ("Index: shop/cart.py\n" + "=" * 67 + "\n" + header("shop/cart.py\t(revision 5)", "shop/cart.py\t(working copy)") + BODY, "repair"),
    "hg": ("# HG changeset patch\ndiff -r 12ab shop/cart.py\n" + header("a/shop/cart.py\tThu Jan 01 00:00:00 2026 +0000", "b/shop/cart.py\tThu Jan 01 00:00:01 2026 +0000") + BODY, "fix"),
    "time of a missing file": (PLAIN + header(f"a/new.txt\t{EPOCH}", "b/new.txt\t2026-01-01 10:00:00 +0100") + "@@ -0,0 +1 @@\n+x\n", "fix"),
    "one side alone": (f"diff --git a/shop/cart.py b/shop/cart.py\n+++ b/shop/cart.py\n{BODY}", "repair"),
    "no side": (f"diff --git a/shop/cart.py b/shop/cart.py\n{BODY}", "repair"),
    "a merge beside it": (MERGE + PLAIN, "fix"),
    "only a merge": (MERGE, "refused"),
    "byte order mark": ("\ufeff" + header() + BODY, "repair"),
    "folder called a, no prefix": (git_header("a/shop/cart.py", "a/shop/cart.py") + "@@ -1 +1 @@\n-another\n+edited\n" + git_header("shop/cart.py", "shop/cart.py") + BODY, "repair"),
    "deleted binary file": (f"{PLAIN}diff --git a/logo.bin b/logo.bin\ndeleted file mode 100644\nindex {blob(LOGO)}..{'0' * 40}\nGIT binary patch\nliteral 0\nHcmV?d00001\n\n{literal(LOGO)}\n", "fix"),
    "one old line too many": (git_header() + BODY.replace("-3,7", "-3,8"), "repair"),
    "one old line too few": (git_header() + BODY.replace("-3,7", "-3,6"), "repair"),
    "one new line too many": (git_header() + BODY.replace("+3,7", "+3,8"), "repair"),
    "one new line too few": (git_header() + BODY.replace("+3,7", "+3,6"), "repair"),
    "a file turned into a link to a folder": (PLAIN + "diff --git a/a/shop/cart.py b/a/shop/cart.py\ndeleted file mode 100644\n--- a/a/shop/cart.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-another\ndiff --git a/a/shop/cart.py b/a/shop/cart.py\nnew file mode 120000\n--- /dev/null\n+++ b/a/shop/cart.py\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n", "refused"),
    "out of the tree": (PLAIN + header("a/../x.py", "b/../x.py") + "@@ -1 +1 @@\n-x\n+y\n", "refused"),
    "into .git": (PLAIN + header("/dev/null", "b/.git/hooks/x") + "@@ -0,0 +1 @@\n+x\n", "refused"),
    "files without end": (f"{PLAIN}diff --git a/x.bin b/x.bin\nnew file mode 100644\nindex {'0' * 40}..{'1' * 40}\nGIT binary patch\nliteral 99999999999\n{literal(b'x').partition(chr(10))[2]}\nliteral 0\nHcmV?d00001\n\n", "refused"),
    "no diff": ("return len(items)\n", "refused"),
    "empty": ("", "nothing"),
}  # fmt: skip

LEFT_OUT = {"cache", "only a cache", "compiled without a source", "a merge beside it"}
"""Forms of which a part is left out."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repo")
    for path, text in FILES.items():
        (root / path).parent.mkdir(exist_ok=True, parents=True)
        (root / path).write_bytes(text.encode())
    return root


def by_git(root: Path, text: str) -> dict[str, bytes] | None:
    """The files without caches after plain `git apply`; None if it refuses the patch."""
    for path, content in FILES.items():
        (root / path).parent.mkdir(exist_ok=True, parents=True)
        (root / path).write_bytes(content.encode())
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(root.parent), "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        ["git", "apply", "-"], cwd=root, env=environment, input=text.encode(), check=False, capture_output=True
    )
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return None if done.returncode else {path: content for path, content in files.items() if not path.endswith(".pyc")}


@pytest.mark.parametrize("name", FORMS)
def test_a_patch_gives_what_git_gives_or_is_repaired(base: Path, tmp_path: Path, name: str) -> None:
    text, outcome = FORMS[name]
    git = by_git(tmp_path / "git", text)
    if outcome == "refused":
        with pytest.raises(PatchError):
            apply_patch(Tree(base), Patch(text))
        return
    tree = apply_patch(Tree(base), Patch(text))
    files = {path: tree.read(path).encode() for path in tree.paths()}
    if outcome == "fix":
        assert files == git
    elif outcome == "repair":
        assert git is None
    if outcome == "nothing":
        assert files == {path: content.encode() for path, content in FILES.items()}
    else:
        assert outcome in ("fix", "repair")
        assert files["shop/cart.py"].startswith(FIXED.encode())


@pytest.mark.slow
def test_every_door_gives_the_same_answer(base: Path, tmp_path: Path) -> None:
    """Python, `evaluate --predictions`, a Ray node, a trainer's attempt, a chat model's answer and `regrade score`."""
    guard = "tests/test_cart.py::test_first"
    task = Task(
        id="cart", repository="shop", base=Tree(base), instruction="", fail_to_pass=(FAILING,), pass_to_pass=(guard,)
    )
    texts = {name: text for name, (text, _) in FORMS.items()}
    expected = {name: outcome in ("fix", "repair") for name, (_, outcome) in FORMS.items()}
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        scored = dict(zip(texts, scorer.score([(task, Patch(text)) for text in texts.values()], resolved), strict=True))
        assert {name: scored[name].value == 1.0 for name in texts} == expected
        runs = [
            found.records[RunOfTests]
            for found in scorer.gather([(task, Patch(t)) for t in texts.values()], {RunOfTests})
        ]
        run_of = dict(zip(FORMS, runs, strict=True))
        for run, (_, outcome) in zip(runs, FORMS.values(), strict=True):
            assert (run.end is End.NOT_APPLIED and bool(run.detail)) == (outcome == "refused")

        rows = [
            {"instance_id": "cart", "model_name_or_path": name, "model_patch": text} for name, text in texts.items()
        ]
        (tmp_path / "predictions.json").write_text(json.dumps(rows))
        models = read_predictions([tmp_path / "predictions.json"]).models
        predicted = {model.model: model.patches["cart"] for model in models}
        again = scorer.score([(task, predicted[name]) for name in texts], resolved)
        assert [breakdown.value for breakdown in again] == [scored[name].value for name in texts]

        node = NodeScorer("auto", str(tmp_path / "cache"), {}, cold=False)
        node._scorer, node._tasks["cart"] = scorer, task
        remote = {name: node.gather("cart", text, {RunOfTests}, False)[0][RunOfTests] for name, text in texts.items()}
        assert {name: run.resolved for name, run in remote.items()} == expected

        attempts = judge(
            [rollout(Patch(text)) for text in texts.values()], {"cart": task}, scorer, DEFAULT_TRAINING_REWARD
        )
        assert {name: attempt.verified for name, attempt in zip(texts, attempts, strict=True)} == expected

        prompt = ChatPrompt(task)
        answers = {name: prompt.patch(text) for name, text in texts.items()}
        assert all(answers[name] == Patch(text) for name, text in texts.items() if "--- " in text)

    sources = []
    for number, text in enumerate(texts.values()):
        (tmp_path / f"{number}.diff").write_bytes(text.encode())
        sources.append(str(tmp_path / f"{number}.diff"))
    request = ScoreRequest(
        repo=base, fail_to_pass=(FAILING,), tasks=None, task=None, reward="resolved", sandbox="auto", workers=1,
        reachable=False, assured="in-process",
    )  # fmt: skip
    # Without verification, which takes four times the tests: no form of a patch is verified otherwise than another.
    results = dict(zip(texts, score_files(sources, request), strict=True))
    for name, (_, outcome) in FORMS.items():
        result = results[name]
        assert bool(result.refusal) == (outcome == "refused"), name
        assert "stash" not in result.refusal
        if result.breakdown is not None:
            assert (result.breakdown.value == 1.0) == expected[name], name
            notes = notes_on(Tree(base), Patch(texts[name]))
            assert all(any(note in shown for shown in result.notes) for note in notes)
            assert outcome == "repair" or bool(notes) == (name in LEFT_OUT), name
        else:
            assert run_of[name].detail.removeprefix(DOES_NOT_APPLY)[:60] in result.refusal
    assert "--binary" in results["binary without data"].refusal
    assert "CR LF" in results["CR stripped"].refusal
    assert "-U0" in results["-U0 at another line"].refusal
    assert "oops" in results["a line without a sign"].refusal
    assert any("beyond its header's counts" in note for note in results["too few counted"].notes)
    assert any("caches" in note for note in results["cache"].notes)


def rollout(patch: Patch) -> Rollout:
    return Rollout(
        task_id="cart", policy="policy", temperature=1.0, sample=0, seed=0, patch=patch, prompt="", completion=""
    )


def test_a_lone_surrogate_is_one_clear_error() -> None:
    with pytest.raises(PatchError, match="character 2 of the patch is a lone surrogate"):
        Patch("x\ud800")


def test_a_scratch_folder_of_a_killed_process_is_named_for_removal(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    monkeypatch.setattr(applying, "_git_apply", lambda folder, *_, **__: names.append(folder.parent.name) or "refused")
    with pytest.raises(PatchError):
        apply_patch(Tree(base), Patch(PLAIN))
    assert names
    assert all(NAME.fullmatch(name) for name in names)
