"""Which versions of each trainer its adapter is written for; which contracts hold: docs/trainers.md."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

WRITTEN_FOR: Mapping[str, str] = {
    "trl": ">=1.16,<1.17",
    "verl": ">=0.9.1,<0.10",
    "openrlhf": ">=0.11.2,<0.12",
    "verifiers": ">=0.4,<0.5",
    "skyrl-gym": ">=0.4,<0.5",
    "nemo-gym": ">=0.4,<0.5",
    "openenv": ">=0.10,<0.11",
    "inspect-ai": ">=0.3.285,<0.4",
    "harbor": ">=0.26,<0.27",
    "harbor-rewardkit": ">=0.2.3,<0.3",
    "agentlightning": ">=1.0.2,<1.1",
    "openpipe-art": ">=0.5.23,<0.6",
}
"""Package -> the range around the version in `tests/contracts/packages.py`."""


def warn_if_untested(package: str) -> None:
    """Warn if the installed version of a package is outside the range that its adapter is written for."""
    try:
        installed = version(package)
    except PackageNotFoundError:
        return
    try:
        is_tested = SpecifierSet(WRITTEN_FOR[package]).contains(installed, prereleases=True)
    except InvalidVersion:
        is_tested = False
    if not is_tested:
        warnings.warn(
            f"{package} {installed} is installed, and its adapter is written for {package}{WRITTEN_FOR[package]}: "
            "install such a version, or check what an unscored answer does before you train",
            stacklevel=3,
        )
