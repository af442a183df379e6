"""Preparing published data sets: download, check, unpack and split them into image folders."""

from neq.preparing.mark import Mark
from neq.preparing.published import Download, Listed, Published, Split
from neq.preparing.steps import prepare

__all__ = ["Download", "Listed", "Mark", "Published", "Split", "prepare"]
