"""A run as one HTML file: it opens from disk, needs no network, and reads in light and dark, wide and narrow."""

from __future__ import annotations

from pathlib import Path

from regrade.evaluators.storage.journal import write_atomically
from regrade.reports.page import build_page
from regrade.reports.results import SHOWN, load_results
from regrade.reports.summary import write_summary
from regrade.reports.templating import render

FILE = "report.html"


def write_report(run: Path) -> Path:
    """Write RUN/report.html and RUN/summary.json anew (each replaced at once) and return the page's path.

    Raises:
        UserError: the folder is no run, or nothing in it was evaluated.
    """
    results = load_results(run)
    write_summary(results)
    page = build_page(results)
    write_atomically(run / FILE, render("report.html", page=page, results=page.results, shown=SHOWN))
    return run / FILE
