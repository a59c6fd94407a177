"""``python -m cluster COMMAND``: the command line is ``cluster.cli``."""

import atexit
import gc
import os
import sys

# Collecting at the end what was loaded takes a quarter of a second after a deploy, for nothing.
atexit.register(gc.freeze)
# Where output is closed (`>&-`), the next file that is opened would be taken for it; and whoever
# prints expects one.
while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
    pass
os.close(spare)
for number, name in enumerate(("stdin", "stdout", "stderr")):
    if getattr(sys, name) is None:
        setattr(sys, name, os.fdopen(number, "w" if number else "r"))
try:
    from cluster.cli import main

    code = main()
except KeyboardInterrupt:  # while Python still imports
    print("interrupted", file=sys.stderr)
    code = 130
sys.exit(code)
