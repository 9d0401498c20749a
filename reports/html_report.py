"""The report of a run as one HTML file without network access, for light and dark schemes, wide and narrow windows."""

from __future__ import annotations

from pathlib import Path

from regrade.evaluators.storage.journal import write_atomically
from regrade.reports.page import GATED, STEP_INKS, build_page
from regrade.reports.results import SHOWN, load_results
from regrade.reports.summary import write_summary
from regrade.reports.templating import render

FILE = "report.html"


def write_report(run: Path) -> Path:
    """Write RUN/report.html and RUN/summary.json (each replaced atomically) and return the path of the page.

    Raises:
        UserError: the folder is no run, or no policy was evaluated.
    """
    results = load_results(run)
    write_summary(results)
    page = build_page(results)
    names = {"results": page.results, "shown": SHOWN, "gated": GATED, "step_inks": STEP_INKS}
    write_atomically(run / FILE, render("report.html", page=page, **names))
    return run / FILE
