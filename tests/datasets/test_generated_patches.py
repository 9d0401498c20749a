"""Patches as git itself writes them, with odd names, in mails and logs, and then damaged: where `git apply` takes one, the
tree after ours is the tree after git's; where it refuses a whole one, ours is the tree that the patch was made from."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from regrade.datasets.applying import apply_patch, as_applied, notes_on
from regrade.datasets.hunks import split_patch
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Tree

Files = dict[bytes, bytes]

NAMES = tuple(
    os.fsencode(name)
    for name in (
        "m.py", "pkg/m.py", "a/m.py", "b/m.py", "a/a/m.py", "sp ace.py", " lead", "trail ", 'q"uote', "back\\slash", "tab\tx",
        "new\nline", "\u00fc.py", "pkg/\u65e5\u672c.py", "x b/y", "a/x b/y", "dev/null", "at 2024-01-01 10:00:00", "--- a", "+++ b", "@@ -1 +1 @@",
        "-- ", "a b/a b", "x y x y", "cr\rx", "end\r", "bell\a", "del\x7f", "x\u2028y", "f\x0c", "UP.py", "up.py", "x.orig", "x",
        "{x => y}", '"q"', "i/w", "inv\udcff.py",
    )
)  # fmt: skip
LINES = (
    "x = 1", "", "    pass", "-- ", "--- a/m.py", "+++ b/m.py", "@@ -1,2 +1,2 @@", "diff --git a/m.py b/m.py", "- item", "+ plus",
    "\\ No newline at end of file", "\u00fc", "\x0cff", "ls\u2028sep", "trailing  ", "--", "---", "```", "From 1 Mon Sep 17 00:00:00 2001",
    "GIT binary patch", "index 123..456", "Binary files a and b differ", "cr in\rmiddle", " ", "rename from x", "\x1c", "\x85",
)  # fmt: skip
OPTIONS = (
    "-M", "-C", "--find-copies-harder", "-B", "--full-index", "--text", "--no-prefix", "-U0", "-U1", "-U20", "--no-renames",
    "--src-prefix=old/", "--dst-prefix=new/",
)  # fmt: skip
COMMANDS = (
    ("diff", "HEAD~", "HEAD"), ("format-patch", "--stdout", "-1"), ("format-patch", "--stdout", "-1", "--attach"), ("log", "-p", "-1"),
    ("show", "--stat", "-p"), ("diff", "-R", "HEAD", "HEAD~"),
)  # fmt: skip
AFTER = (
    b"\nDone.\n", b"\n- item\n+ plus\n", b"```\n", b"-- \n2.39.5\n", b"\n\n\n", b" x\n", b"+ y\n", b"\\ No newline at end of file\n",
)  # fmt: skip
TIMES = (
    b"\t2026-01-01 10:00:00.000000000 +0100", b" 2026-01-01 10:00:00", b"\t1970-01-01 01:00:00 +0100", b"\t(revision 5)",
)  # fmt: skip
GIT_LINES = (b"index ", b"new file", b"deleted file", b"diff --git", b"--- ", b"+++ ")
MESSAGE = "Fix\n\n- a list\n+ more\n--- rule ---\n\n@ -1\n"


def git(
    *arguments: str, folder: Path, given: bytes = b"", options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    who = {f"GIT_{role}_{kind}": "n@e" for role in ("AUTHOR", "COMMITTER") for kind in ("NAME", "EMAIL")}
    environment = who | {
        "PATH": os.environ["PATH"], "HOME": os.devnull, "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }  # fmt: skip
    return subprocess.run(
        ["git", *options, *arguments], cwd=folder, env=environment, input=given, capture_output=True, check=False
    )


def written(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def read(folder: Path) -> Files:
    return {
        os.fsencode(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


def content(random: Random) -> bytes:
    kind, end = random.random(), random.choice(["\n", "\n", "\n", "\r\n"])
    if kind < 0.1:
        return b"" if kind < 0.05 else bytes(random.choices(b"\0\1ab\n\xff", k=40))
    text = "".join(random.choice(LINES) + end for _ in range(random.randint(1, 20)))
    return text.removesuffix(end if random.random() < 0.25 else "").encode() + (
        b"\xff\n" if random.random() < 0.1 else b""
    )


def edited(random: Random, old: bytes) -> bytes:
    lines = old.split(b"\n")
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(lines) + 1)
        lines[at : at + random.randint(0, 1)] = [random.choice(LINES).encode()] * random.randint(0, 1)
    return b"\n".join(lines)


def is_free(files: Files, name: bytes) -> bool:
    parts = name.split(b"/")
    above = {b"/".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return not above & files.keys() and not any(other.startswith(name + b"/") for other in files)


def trees(random: Random) -> tuple[Files, Files]:
    before: Files = {}
    for name in random.sample(NAMES, random.randint(1, 6)):
        if is_free(before, name):
            before[name] = content(random)
    after = dict(before)
    for _ in range(random.randint(1, 4)):
        old, new, act = (
            random.choice([*before]),
            random.choice(NAMES),
            random.choice(["edit", "edit", "delete", "create", "rename", "copy", "swap"]),
        )
        if act == "create" and is_free(after, new):
            after[new] = content(random)
        elif old not in after:
            continue
        elif act == "edit":
            after[old] = edited(random, after[old])
        elif act == "swap":
            other = random.choice([*after])
            after[old], after[other] = after[other], after[old]
        elif act == "delete":
            del after[old]
        elif is_free(after, new):
            after[new] = edited(random, after[old]) if random.random() < 0.5 else after[old]
            if act == "rename":
                del after[old]
    return before, after


def damaged(random: Random, text: bytes) -> bytes:
    """A patch after an accident that happens to mails, editors and models."""
    lines = text.split(b"\n")
    at = random.randrange(len(lines))
    match random.randrange(11):
        case 0:
            return text.rstrip(b"\n")
        case 1:
            return text.replace(b"\n", b"\r\n")
        case 2:  # one more or fewer in the counts of a hunk
            heads = [index for index, line in enumerate(lines) if line.startswith(b"@@ -") and line.count(b",") == 2]
            if heads:
                at = random.choice(heads)
                first, count = lines[at].split(b",")[:2]
                number, space, rest = count.partition(b" ")
                changed = str(max(0, int(number) + random.choice([-1, 1]))).encode()
                lines[at] = b",".join([first, changed + space + rest, *lines[at].split(b",")[2:]])
        case 3:
            del lines[at]
        case 4:
            lines.insert(at, lines[at])
        case 5:
            return text + random.choice(AFTER)
        case 6:
            return b"Here:\n--- x\n```diff\n" + text
        case 7:
            lines = [b"" if line == b" " else line for line in lines]
        case 8:
            return text + text
        case 9:
            dropped = random.choice(GIT_LINES)
            lines = [line for line in lines if not line.startswith(dropped)]
        case _:
            time = random.choice(TIMES)
            kept = [line for line in lines if not line.startswith(GIT_LINES[:4])]
            lines = [
                line.rstrip(b"\t") + time if line.startswith(GIT_LINES[4:]) and b"dev/null" not in line else line
                for line in kept
            ]
    return b"\n".join(lines)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    assert git("init", "-q", ".", folder=folder).returncode == 0
    return folder


def printed(random: Random, repository: Path, before: Files, after: Files) -> bytes:
    """The difference as git prints it, in one of its forms."""
    command, *arguments = random.choice(COMMANDS)
    pair = (after, before) if "-R" in arguments else (before, after)
    for files in pair:
        for path in repository.iterdir():
            if path.name != ".git":
                subprocess.run(["rm", "-rf", "--", str(path)], check=True)
        written(repository, files)
        assert git("add", "-A", "-f", folder=repository).returncode == 0
        assert git("commit", "-q", "--allow-empty", "-m", MESSAGE, folder=repository).returncode == 0
    settings = ("-c", f"core.quotePath={random.choice(['true', 'false'])}")
    chosen = random.sample(OPTIONS, random.randint(0, 3))
    if "-R" in arguments:
        arguments = ["-R", "HEAD~", "HEAD"]
    return git(command, "--binary", *chosen, *arguments, folder=repository, options=settings).stdout


def ours(base: Path, text: bytes) -> Files | None:
    """The files after our application; None if it refuses the patch. The parts of the patch together do the same."""
    tree, patch = Tree(base), Patch(text.decode("utf-8", "surrogateescape"))
    try:
        after = apply_patch(tree, patch)
        parts = split_patch(as_applied(tree, patch), fine=True)
    except PatchError:
        return None
    notes_on(tree, patch)
    again = apply_patch(tree, parts.subset(range(len(parts.hunks))))
    files = {os.fsencode(path): after.read(path).encode("utf-8", "surrogateescape") for path in after.paths()}
    assert files == {os.fsencode(path): again.read(path).encode("utf-8", "surrogateescape") for path in again.paths()}
    return files


@settings(max_examples=12)
@given(random=st.randoms(use_true_random=False))
def test_a_patch_of_git_damaged_or_not_gives_what_git_gives(repository: Path, random: Random) -> None:
    before, after = trees(random)
    whole = printed(random, repository, before, after)
    with tempfile.TemporaryDirectory() as name:
        base = written(Path(name, "base"), before)
        base.mkdir(exist_ok=True)
        for number, text in enumerate([whole, *(damaged(random, whole) for _ in range(3))]):
            plain = written(Path(name, str(number)), before)
            plain.mkdir(exist_ok=True)
            done = git("apply", "--whitespace=nowarn", "-", folder=plain, given=text)
            found = ours(base, text)
            patch = Patch(text.decode("utf-8", "surrogateescape"))
            if done.returncode == 0 and patch.plain.has_uncounted_lines:
                event("lines beyond a hunk's counts, which git drops in silence")
                assert found != before
            elif done.returncode == 0:
                event("applied")
                assert found == read(plain)
                _ = patch.files
            elif number == 0:
                event("repaired" if found is not None else "refused")
                assert found in (None, after), text
