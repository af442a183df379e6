"""Make Visual Wake Words from COCO; see --help."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neq.cli.preparing import run_script
from neq.data.published import PublishedSet
from neq.data.published.vww import published_vww
from neq.utils.errors import UserError

ABOUT = """\
Visual Wake Words (Chowdhery et al. 2019, arXiv 1906.05721): is a person in the photo? 123,287 photos of COCO.

An image is of class person if the box of some person covers over 0.5 % of it. The test split is the 8,059
images of the published minival list, train is everything else of COCO's train and val (115,228 images); both
years hold the same images.

source   https://cocodataset.org (2014: 19 GB, 2017: 19 GB), and the minival list of tensorflow/models
licence  annotations CC BY 4.0; photos of Flickr, each under its own terms, which the annotations name
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this set alone."""
    parser.add_argument(
        "--year", type=int, choices=(2014, 2017), default=2014, help="of COCO (default: 2014)"
    )
    parser.add_argument(
        "--area",
        choices=("box", "segment"),
        default="box",
        help="which area of a person counts: that of the box, as in the paper (default), or that of the "
        "segmentation, as in the published scripts",
    )
    parser.add_argument(
        "--small-side", metavar="PIXELS", type=int, help="shrink larger images to this smaller side, as JPEG"
    )


def describe(flags: argparse.Namespace) -> PublishedSet:
    """The set that the flags describe."""
    side = flags.small_side
    if side is not None and side < 1:
        raise UserError(f"--small-side is {side}; at least 1 pixel is allowed, as 256.")
    return published_vww(flags.year, flags.area, side)


if __name__ == "__main__":
    sys.exit(run_script(ABOUT, describe, add_flags))
