"""Gathers the runs of sweep files into an Excel book, and measures the best networks again; see --help."""

import sys

from neq.cli import main

if __name__ == "__main__":
    sys.exit(main(["results", "book", *sys.argv[1:]]))
