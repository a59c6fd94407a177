#!/bin/sh
# Run one replica in the foreground under its supervisor, its process id in a file.
# Usage: run-replica.sh PID_FILE COMMAND...
set -eu
echo "$$" >"$1"
shift
exec "$@"
