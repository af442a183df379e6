"""python -m neq is the neq command."""

import sys

from neq.cli import main

sys.exit(main())
