"""Hooks of the docs site (`make docs`): pages outside docs/, links to code, and the version in the header.

The Markdown stays as it is read on the repository's own pages. Here its links lead to pages of the site: README.md is
the first page; a file of code becomes a page with that code; a link to anything else is an error of `mkdocs --strict`.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parent.parent
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
}
"""File in the repository's root -> its page."""
LINK = re.compile(r"(\]\(|<img src=\")([^)\s\"#]+)(#[^)\s\"]*)?(?=[)\"])")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".sh": "sh"}
LARGEST = 200_000
"""Characters of a file that is shown."""


def on_config(config: Any) -> Any:
    """The version that the docs are of, in the header and in the title of every page."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    config.site_name = f"Regrade {version}"
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the root, and a page for each file of code that a page links to."""
    for name, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text("utf-8")))
    linked = {
        target
        for page in files.documentation_pages()
        for target in _targets(page.content_string, _repository_path(page.src_uri))
    }
    for target in sorted(linked):
        content = _source_page(target)
        files.append(File.generated(config, _page_of(target), content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The links of a page, as links between pages of the site; those in blocks of code stay as they are."""
    path = _repository_path(page.file.src_uri)

    def leading(found: re.Match[str]) -> str:
        target = _resolved(found[2], path)
        if target is None:
            return found[0]
        link = posixpath.relpath(_page_of(target), posixpath.dirname(page.file.src_uri) or ".")
        return f"{found[1]}{link}{found[3] or ''}"

    if page.file.src_uri.startswith("source/"):
        return markdown
    pieces, end = [], 0
    for fence in FENCE.finditer(markdown):
        pieces += [LINK.sub(leading, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, LINK.sub(leading, markdown[end:])])


def _repository_path(page: str) -> str:
    """Where the Markdown of a page is in the repository."""
    return next((name for name, own in ROOT_PAGES.items() if own == page), f"docs/{page}")


def _resolved(link: str, path: str) -> str | None:
    """The file of the repository to which a link of that page leads; None: to another host, or to nothing."""
    if "://" in link or link.startswith("mailto:"):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return target if not target.startswith("..") and (ROOT / target).is_file() else None


def _targets(markdown: str, path: str) -> set[str]:
    """The files of code to which a page links."""
    found = {_resolved(link, path) for _, link, _ in LINK.findall(FENCE.sub("", markdown))}
    return {target for target in found if target and target not in ROOT_PAGES and not target.startswith("docs/")}


def _page_of(target: str) -> str:
    if target in ROOT_PAGES:
        return ROOT_PAGES[target]
    return target.removeprefix("docs/") if target.startswith("docs/") else f"source/{target}.md"


def _source_page(target: str) -> str:
    text = (ROOT / target).read_text("utf-8")[:LARGEST]
    fence = "~" * max(4, *(len(run) + 1 for run in re.findall(r"~+", text) or [""]))
    language = LANGUAGES.get(Path(target).suffix, "text")
    front = f"---\ntitle: {target}\nsearch:\n  exclude: true\n---\n"
    return f"{front}# `{target}`\n\n{fence} {language}\n{text.rstrip()}\n{fence}\n"
