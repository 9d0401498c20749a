"""Where an interpreter would import modules from. The interpreter runs this file (with `-I`), so it imports only the
standard library."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Iterable


def origins(names: Iterable[str]) -> dict[str, list[str]]:
    """Name -> file or folder of the installed module, then the names and the origins (URL) of its distributions."""
    distributions: dict[str, list[str]] = {}
    with contextlib.suppress(Exception):  # of damaged metadata
        distributions = dict(importlib.metadata.packages_distributions())
    found = {}
    for name in names:
        file = _file(name)
        if file:
            found[name] = [file, *(text for owner in distributions.get(name, ()) for text in (owner, _url(owner)))]
    return found


def _file(name: str) -> str:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    return spec.origin or next(iter(spec.submodule_search_locations or ()), "")


def _url(distribution: str) -> str:
    try:
        text = importlib.metadata.distribution(distribution).read_text("direct_url.json")
        return str(json.loads(text or "{}").get("url", ""))
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""


if __name__ == "__main__":
    print(json.dumps(origins(sys.argv[1:])))
