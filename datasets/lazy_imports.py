"""Lazy imports: the public names of a package, each loaded from its module on first use.

`from regrade.evaluators import score` then loads neither pandas nor the statistics, which only `compare` needs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def lazy_imports(
    package: str, names: Mapping[str, Iterable[str]], modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package that exports names of its modules (PEP 562).

    Args:
        package: dotted name.
        names: module, relative to the package -> its exported names.
        modules: exported modules, relative to the package; each under the last part of its name.
    """
    sources = {name: (module, name) for module, exported in names.items() for name in exported}
    sources |= {module.rpartition(".")[2]: (module, "") for module in modules}

    def load(name: str) -> Any:
        if name not in sources:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        path, attribute = sources[name]
        module = importlib.import_module(f"{package}.{path}")
        value = getattr(module, attribute) if attribute else module
        vars(sys.modules[package])[name] = value
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *sources})
