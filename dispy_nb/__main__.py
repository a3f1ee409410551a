"""`python -m dispy_nb` is the `dispy` command."""

import sys

from dispy_nb.commands import main

if __name__ == '__main__':
    sys.exit(main())
