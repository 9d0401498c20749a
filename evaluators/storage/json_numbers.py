"""Numbers for JSON: null replaces NaN and infinity, which JSON lacks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite_or_none(value: Any) -> Any:
    """The value; None for a float that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def finite_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with None for each float that is not finite."""
    return {key: finite_or_none(value) for key, value in values.items()}
