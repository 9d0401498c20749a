"""One reward in every trainer: one module a trainer, thin over `verdicts.py`. How to use each: docs/trainers.md."""
