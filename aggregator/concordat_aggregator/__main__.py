"""`python -m concordat_aggregator`."""

import sys

from concordat_aggregator.job import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
