"""The Python of the docs and of examples/ has the right types: a reader's type checker accepts it as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))


def snippets(page: Path) -> str:
    """The blocks of a page, one after another: a later one continues the earlier ones."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return "\n".join(blocks)


def checked(folder: Path, texts: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What mypy says of them, with the settings of this project."""
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", *(str(folder / f"{name}.py") for name in texts)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_snippets_of_every_page_and_the_examples_have_the_right_types(tmp_path: Path) -> None:
    texts = {f"page_{re.sub(r'[^a-z]', '_', page.stem.lower())}": snippets(page) for page in PAGES}
    texts = {name: text for name, text in texts.items() if text}
    assert {"page_readme", "page_evidence", "page_scoring"} <= texts.keys()
    texts |= {f"example_{path.stem}": path.read_text("utf-8") for path in ROOT.glob("examples/*.py")}
    done = checked(tmp_path, texts)
    assert done.returncode == 0, done.stdout
    wrong = checked(tmp_path, {"wrong": texts["page_readme"] + "\nprint(fix_bug.weight)\n"})  # it sees the code
    assert (wrong.returncode, "has no attribute" in wrong.stdout) == (1, True), wrong.stdout
