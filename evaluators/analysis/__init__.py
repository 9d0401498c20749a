"""Analysis of rows: metrics, intervals, comparisons, audits. Nothing here executes code."""
