"""Rows in, figures out: metrics, intervals, comparisons, audits. Nothing here runs code."""
