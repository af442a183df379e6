"""Download Oxford 102 Flowers and split it officially; see --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neq.cli.preparing import run_script
from neq.data.published.flowers import FLOWERS

ABOUT = """\
Oxford 102 Flowers: 8,189 photos of 102 flowers, official train, validation and test splits.

source   https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ (345 MB)
licence  none stated; photos from the web, which belong to their photographers

Many papers train on train and validation together: --validation 0 does so.
"""

if __name__ == "__main__":
    sys.exit(run_script(ABOUT, lambda _: FLOWERS))
