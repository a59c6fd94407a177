"""pyinfra's inventory of the load hosts of $INVENTORY, for ``tasks.load_host``."""

from cluster.config import inventory
from cluster.refusal import told

with told():
    _deployment = inventory.read()
hosts = [
    (host.place, {k: v for k, v in host.model_dump(by_alias=True).items() if v != ""})
    for host in _deployment.load_hosts
]
