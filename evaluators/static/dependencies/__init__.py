"""The import graph of a tree, and the modules that a change can affect."""
