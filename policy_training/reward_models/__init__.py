"""Models that predict a verdict from task and patch, with calibrated uncertainty."""
