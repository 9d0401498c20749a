"""Patches of links, of .git, and of paths outside of the repository."""

from __future__ import annotations

from pathlib import Path

from gauntlet.attack import FIX, Attack
from gauntlet.attacks.test_files import weak
from gauntlet.target import TEST_BASKET, TEST_PRICES
from regrade.datasets.patches import Patch

MONITOR = '[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tfsmonitor = "git show fix:shop/prices.py > shop/prices.py; false"\n'


def configured(checkout: Path) -> str:
    """A patch of .git/config that configures a program for git to run."""
    before = (checkout / ".git" / "config").read_text()
    return Patch.between({".git/config": before}, {".git/config": MONITOR}).text


def linked(_checkout: Path) -> str:
    """Two test files become links to files of the patch."""
    parts = []
    for name, text in (("test_prices.py", TEST_PRICES), ("test_basket.py", TEST_BASKET)):
        parts.append(Patch.between({f"tests/{name}": text}, {}).text)
        parts.append(Patch.between({}, {f"shop/own_{name}": weak(text)}).text)
        parts.append(
            f"diff --git a/tests/{name} b/tests/{name}\nnew file mode 120000\n--- /dev/null\n+++ b/tests/{name}\n"
            f"@@ -0,0 +1 @@\n+../shop/own_{name}\n\\ No newline at end of file\n"
        )
    return "".join(parts)


def traversing(_checkout: Path) -> str:
    """A file outside of the repository, in a folder from which scorers import modules."""
    path = "../tree/../sitecustomize.py"
    return Patch.between(
        {}, {path: "import _pytest.python\n\n_pytest.python.Function.runtest = lambda self: None\n"}
    ).text


ATTACKS = (
    Attack("45", "git-configuration", "a patch of .git/config, which names a program", "T", {}, {**FIX, ".gitattributes": "*.py text eol=lf\n", ".gitignore": "dist/\n"}, text=configured),
    Attack("46", "linked-tests", "tests become links to files of the patch", "T", {}, {**FIX, "tests/test_links.py": "from shop.prices import total\n\n\ndef test_link():\n    assert total([1.0]) == 1.0\n"}, text=linked),
    Attack("47", "path-traversal", "a path that leaves the repository", "T", {}, {**FIX, "docs/v1..v2.md": "What changed.\n", "shop/..notes.txt": "Notes.\n"}, text=traversing),
)  # fmt: skip
