"""Compiled modules that an environment has of a repository's own package, and that the tested tree lacks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from regrade.datasets.tasks import TestSuite, Tree
from regrade.evaluators.execution import environments
from regrade.evaluators.execution.native_code import EXTENSIONS
from regrade.evaluators.execution.own_modules import own_modules

MISSING = re.compile(r"No module named '([\w.]+)'")
MISSING_NAME = re.compile(r"cannot import name '(\w+)' from (?:partially initialized module )?'([\w.]+)'")


def advice_on_compiled(tree: Tree, suite: TestSuite, interpreter: Path, messages: Iterable[str]) -> str:
    """What to do if the messages lack a module of the tree's own that is compiled in an installed copy; or empty.

    The tests use the tree's own copy, so they find no part that only the installed one has. Its file is not copied: no
    patch of its sources would be tested.
    """
    text = "\n".join(messages)
    names = {*MISSING.findall(text), *(f"{package}.{name}" for name, package in MISSING_NAME.findall(text))}
    tops = {name.partition(".")[0] for name in names if "." in name}
    own = tuple(sorted(tops.intersection(own_modules(tree.root, suite.python_path))))
    if not own:
        return ""
    installed = environments.import_origins(interpreter, own)
    for name in sorted(names):
        top, _, rest = name.partition(".")
        if rest and top in installed:
            folder = Path(installed[top][0]).parent.joinpath(*rest.split(".")[:-1])
            for file in folder.glob(f"{rest.rpartition('.')[2]}.*"):
                if file.name.endswith(EXTENSIONS):
                    return (
                        f"{name} is compiled only in the installed copy ({file}), and the tests use the repository's "
                        f"own: build it there with `{interpreter} setup.py build_ext --inplace`, or install the "
                        f"repository with `{interpreter} -m pip install -e .`"
                    )
    return ""
