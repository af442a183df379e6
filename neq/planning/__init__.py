"""Retraining under a device's limits: which configuration of a training step to run."""
