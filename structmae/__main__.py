"""`python -m structmae`: the command line, for machines where the script is not on the path."""

import sys

from structmae.cli import main

if __name__ == "__main__":
    sys.exit(main())
