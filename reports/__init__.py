"""Reports of scores, evaluations and comparisons: one HTML file, terminal tables, Markdown and JSON.

Public: load_results, Results, write_report, write_summary; print_evaluation, print_comparison, comparison_markdown;
print_breakdown, explanation_html, print_attribution.
"""

from typing import TYPE_CHECKING

from regrade.datasets.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from regrade.reports.explanation import explanation_html, print_breakdown
    from regrade.reports.html_report import write_report
    from regrade.reports.hunks import print_attribution
    from regrade.reports.markdown import comparison_markdown
    from regrade.reports.results import Results, load_results
    from regrade.reports.summary import write_summary
    from regrade.reports.terminal import print_comparison, print_evaluation

__all__ = [
    "Results",
    "comparison_markdown",
    "explanation_html",
    "load_results",
    "print_attribution",
    "print_breakdown",
    "print_comparison",
    "print_evaluation",
    "write_report",
    "write_summary",
]
__getattr__, __dir__ = lazy_imports(
    __name__,
    {
        "explanation": ["explanation_html", "print_breakdown"],
        "html_report": ["write_report"],
        "hunks": ["print_attribution"],
        "markdown": ["comparison_markdown"],
        "results": ["Results", "load_results"],
        "summary": ["write_summary"],
        "terminal": ["print_comparison", "print_evaluation"],
    },
)
