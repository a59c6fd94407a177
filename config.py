"""pyinfra's own settings: read by every ``pyinfra`` command that is typed in this directory."""

from pyinfra import config

from tasks.support import connector

# A cluster is one thing: when one host fails, no step that follows may run on the others.
config.FAIL_PERCENT = 0

# Servers are reached through one connection each, by this machine's own ssh.
connector.use()
