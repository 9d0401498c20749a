"""Policies x tasks x samples -> rows, whose evidence is stored beside them."""
