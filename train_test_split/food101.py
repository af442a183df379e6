"""Download Food-101 and split it officially; see --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neq.cli.preparing import run_script
from neq.data.published.food import FOOD

ABOUT = """\
Food-101: 101,000 photos of 101 dishes, official train and test splits.

source   https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/ (5 GB)
licence  photos of foodspotting.com, not owned by the publisher; use beyond scientific fair use has to be
         agreed with their owners
"""

if __name__ == "__main__":
    sys.exit(run_script(ABOUT, lambda _: FOOD))
