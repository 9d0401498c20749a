"""The same verdicts in the protocols of trainers: one module per protocol."""
