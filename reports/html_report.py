"""A run as one HTML file: it opens from disk, needs no network, and reads in light and dark, wide and narrow."""

from __future__ import annotations

from pathlib import Path

import jinja2

from regrade.evaluators.journal import write_atomically
from regrade.reports import wording
from regrade.reports.page import Page, build_page, points
from regrade.reports.results import SHOWN, load_results
from regrade.reports.summary import write_summary

FILE = "report.html"


def write_report(run: Path) -> Path:
    """Write RUN/report.html and RUN/summary.json anew (each replaced at once) and return the page's path.

    Raises:
        UserError: the folder is no run, or nothing in it was evaluated.
    """
    results = load_results(run)
    write_summary(results)
    page = render(build_page(results))
    write_atomically(run / FILE, page)
    return run / FILE


def render(page: Page) -> str:
    """The page as text. Whatever came from a policy or a task is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regrade.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=wording.percent,
        interval=wording.interval,
        signed=wording.signed,
        p_value=wording.p_value,
        duration=wording.duration,
        temperature=wording.temperature,
        number=wording.number,
        points=points,
    )
    text = environment.get_template("report.html").render(page=page, results=page.results, shown=SHOWN)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # half of a surrogate pair cannot be written
