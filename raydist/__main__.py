"""`python -m raydist` is the command line."""

import sys

from raydist.cli import main

sys.exit(main())
