"""The import graph of a tree, and which modules a change can affect."""
