"""`raydist pipeline` as a script, for Ray jobs: `raydist submit jobs/pipeline.py FILE`."""

import sys

from raydist.cli import main

if __name__ == "__main__":
    sys.exit(main(["pipeline", *sys.argv[1:]]))
