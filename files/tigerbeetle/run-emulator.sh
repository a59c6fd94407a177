#!/bin/sh
# /tigerbeetle in the emulator's image: the emulator, with the server's command line.
PYTHONPATH=/opt PYTHONDONTWRITEBYTECODE=1 exec python3 -m tigerbeetle_emulator "$@"
