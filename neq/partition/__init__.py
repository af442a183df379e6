"""Branched networks for two devices that run side by side and exchange feature maps."""
