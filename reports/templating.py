"""The jinja environment of all pages and fragments."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jinja2

from regrade.datasets.plurals import counted
from regrade.reports import number_format
from regrade.rewards.breakdown import rounded_shares


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """Return the environment: it escapes all values, and an undefined name is an error."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("regrade.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(
        percent=number_format.percent,
        rate_value=number_format.rate_value,
        methods=number_format.methods,
        minimum_effects=number_format.minimum_effects,
        confidence=number_format.confidence,
        family=number_format.family,
        elsewhere=number_format.elsewhere,
        interval=number_format.interval,
        signed=number_format.signed,
        p_value=number_format.p_value,
        equals_p=number_format.equals_p,
        duration=number_format.duration,
        temperature=number_format.temperature,
        number=number_format.number,
        logged=number_format.logged,
        points=number_format.points,
        detectable=number_format.detectable,
        counted=counted,
        rounded_shares=rounded_shares,
    )
    return templates


def render(template: str, **values: Any) -> str:
    """Return the rendered template, with lone surrogates escaped, since UTF-8 cannot encode them."""
    text = environment().get_template(template).render(**values)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
