"""``python -m cluster COMMAND``: the command line is ``cluster.cli``."""

import sys

try:
    from cluster.cli import main

    code = main()
except KeyboardInterrupt:  # while Python still imports
    print("interrupted", file=sys.stderr)
    code = 130
sys.exit(code)
