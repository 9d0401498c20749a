"""Trajectories that other agents left, read into the records of steps of `regrade.datasets.episodes`."""
