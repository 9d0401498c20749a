from __future__ import annotations

import json
import math

import numpy as np

from regrade.evaluators.storage.json_numbers import finite_values


def test_what_is_not_finite_becomes_null() -> None:
    values = {"nan": math.nan, "inf": -math.inf, "numpy": np.float64("nan"), "zero": 0.0, "whole": 3, "text": "nan"}
    assert json.dumps(finite_values(values), allow_nan=False) == (
        '{"nan": null, "inf": null, "numpy": null, "zero": 0.0, "whole": 3, "text": "nan"}'
    )
