"""Download Caltech-UCSD Birds 200-2011 and split it officially; see --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neq.cli.preparing import run_script
from neq.data.published.cub import CUB

ABOUT = """\
Caltech-UCSD Birds 200-2011: 11,788 photos of 200 birds, official train and test splits.

source   https://www.vision.caltech.edu/datasets/cub_200_2011/ (1.15 GB)
licence  none stated with the archive; photos from the web, which belong to their photographers
"""

if __name__ == "__main__":
    sys.exit(run_script(ABOUT, lambda _: CUB))
