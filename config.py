"""pyinfra's own settings: read by every ``pyinfra`` command that is typed in this directory."""

from pyinfra import config

# A cluster is one thing: when one host fails, no step that follows may run on the others.
config.FAIL_PERCENT = 0
