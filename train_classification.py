"""Trains a vision network under a neuron budget; --help lists every setting."""

import sys

from neq.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
