"""`python -m concordat_operator.aggregator`."""

import sys

from concordat_operator.aggregator.job import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
