"""``python -m cluster COMMAND``: the command line is ``cluster.cli``."""

import atexit
import gc
import sys

# Collecting at the end what was loaded takes a quarter of a second after a deploy, for nothing.
atexit.register(gc.freeze)
try:
    from cluster.cli import main

    code = main()
except KeyboardInterrupt:  # while Python still imports
    print("interrupted", file=sys.stderr)
    code = 130
sys.exit(code)
