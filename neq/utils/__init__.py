"""Errors, files, seeds, devices, images and console output: what every room uses."""
