"""Trains a vision network under a neuron budget; --help lists every setting."""

import sys

from neq.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
