"""Evaluation of policies: policies x tasks x samples -> rows, with their evidence beside them."""
