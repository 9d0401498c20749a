"""The jinja environment of every page and fragment."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jinja2

from regrade.datasets.plurals import counted
from regrade.reports import wording


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """Everything is escaped, and a name that is not there is an error."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("regrade.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        percent=wording.percent,
        interval=wording.interval,
        signed=wording.signed,
        p_value=wording.p_value,
        duration=wording.duration,
        temperature=wording.temperature,
        number=wording.number,
        points=wording.points,
        detectable=wording.detectable,
        counted=counted,
    )
    return found


def render(template: str, **values: Any) -> str:
    """The template filled in; half of a surrogate pair, which no file can hold, is written as an escape."""
    text = environment().get_template(template).render(**values)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
