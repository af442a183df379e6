"""Published data sets: downloaded, verified, unpacked, and opened by name or prepared as image folders."""

from neq.data.published.by_name import open_published, provide
from neq.data.published.download import Download
from neq.data.published.mark import Mark
from neq.data.published.prepare import prepare
from neq.data.published.published_set import ListedImage, PublishedSet

__all__ = ["Download", "ListedImage", "Mark", "PublishedSet", "open_published", "prepare", "provide"]
