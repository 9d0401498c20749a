"""The face of a package: names that users import, each loaded from its module on first use.

`from regrade.evaluators import score` then loads neither pandas nor the statistics, which `compare` alone needs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def lazy_imports(
    package: str, names: Mapping[str, Iterable[str]], modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose public names lie in its modules (PEP 562).

    Args:
        package: dotted name.
        names: module, relative to the package -> the names that it gives to the face.
        modules: modules, relative to the package, that are on the face themselves, by the last part of their name.
    """
    homes = {name: (module, name) for module, listed in names.items() for name in listed}
    homes |= {module.rpartition(".")[2]: (module, "") for module in modules}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        path, attribute = homes[name]
        module = importlib.import_module(f"{package}.{path}")
        value = getattr(module, attribute) if attribute else module
        vars(sys.modules[package])[name] = value
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *homes})
