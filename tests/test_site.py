"""The docs as a site: built without a warning, every link of every page leads somewhere, the version in the header."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r'<(?:a|img|link|script)\b[^>]*?\s(?:href|src)="([^"]*)"')
ANCHOR = re.compile(r'\s(?:id|name)="([^"]*)"')

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("material") is None, reason="the `docs` extra is not installed"),
]


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr
    return folder


def test_every_link_of_every_page_leads_somewhere(site: Path) -> None:
    pages = {page: page.read_text("utf-8") for page in site.rglob("*.html") if page.name != "404.html"}
    anchors = {page: {unquote(name) for name in ANCHOR.findall(text)} for page, text in pages.items()}
    links = [(page, link) for page, text in pages.items() for link in LINK.findall(text)]
    own = [(page, link) for page, link in links if "://" not in link and not link.startswith(("data:", "#__"))]
    assert len(own) > 2000
    for page, link in own:
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        target = target / "index.html" if target.is_dir() else target
        assert target.is_file(), f"{page.name}: {link}"
        if anchor and target in anchors:
            assert anchor in anchors[target], f"{page.name}: {link}"


def test_every_page_is_in_the_navigation_and_names_the_version(site: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    index = (site / "index.html").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f'href="{page.stem}.html"' in index, f"{page.name} is not in the nav of mkdocs.yml"
        assert f"Regrade {version}</title>" in (site / f"{page.stem}.html").read_text("utf-8")


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    """Of a page and of an anchor, in a copy with few pages."""
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        (tmp_path / name).write_text("# Page\n\n[to another](docs/other.md#there)\n")
    for name in ("mkdocs.yml", "pyproject.toml", "docs/site_hooks.py", "docs/site.css"):
        shutil.copy(ROOT / name, tmp_path / name)
    settings = (tmp_path / "mkdocs.yml").read_text()
    (tmp_path / "mkdocs.yml").write_text(re.sub(r"^nav:\n(?:  .*\n)+", "", settings, flags=re.MULTILINE))
    good = "# Other\n\n## There\n\n[code](site_hooks.py) [the first page](../README.md)\n"
    (tmp_path / "docs" / "other.md").write_text(good)
    (tmp_path / "README.md").write_text(
        "# Page\n\n[a](docs/other.md#here) [b](docs/missing.md) [c](docs/site_hooks.py)\n"
    )
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "contains a link 'other.md#here', but the doc 'other.md' does not contain an anchor '#here'" in done.stderr
    assert "contains a link 'docs/missing.md'" in done.stderr
