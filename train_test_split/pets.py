"""Download Oxford-IIIT Pets and split it officially; see --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neq.cli.preparing import run_script
from neq.data.published.pets import PETS

ABOUT = """\
Oxford-IIIT Pets: 7,349 photos of 37 breeds of cats and dogs, official train (trainval) and test splits.

source   https://www.robots.ox.ac.uk/~vgg/data/pets/ (811 MB)
licence  CC BY-SA 4.0; the photos belong to their photographers
"""

if __name__ == "__main__":
    sys.exit(run_script(ABOUT, lambda _: PETS))
