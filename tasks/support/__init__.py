"""What every task needs: the deployment at hand, what was observed of its servers, ways to act."""

import pyinfra

from cluster import interruption
from cluster.refusal import Interrupted

if pyinfra.is_cli:  # its own answer to Ctrl-C is success, wherever it stands
    interruption.listen(by=SystemExit(Interrupted.exit_code))  # gevent shows no traceback of it
