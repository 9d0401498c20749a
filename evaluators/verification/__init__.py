"""How far a verdict can be trusted: what each assurance level runs beyond the tests."""
