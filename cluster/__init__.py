"""The cluster: what it is, and how it is kept. Rooms, lowest first; no module imports upward.

- ``refusal``      what cannot be done, in words for whoever asked
- ``interruption`` what Ctrl-C and its like end, and what they may not cut in two
- ``command``      what the commands of ``python -m cluster`` share
- ``pyz``          a Python program as one file, for a server that has nothing but Python
- ``config``       the env file as a frozen, validated ``Cluster``; inventories as deployments
- ``tigerbeetle``  what TigerBeetle says of itself: data file, log, answers, releases
- ``runtimes``     how replicas are run: processes, Compose, systemd, Docker
- ``checks``       is this machine, are these servers, fit for them?
- ``health``       how is the cluster? health, status, doctor, watch, logs
- ``operate``      what is done to a whole cluster: rollout, backup, restore, recover, upgrade
"""

from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
#: What is meant where nobody names an inventory.
DEFAULT_INVENTORY = "inventories/emulator.py"
