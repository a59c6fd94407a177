"""Three replicas in Docker on this machine: `docker-compose.tb.yaml`, hardened.

The image's base decides the engine: the official one is TigerBeetle's; one that is named
`tigerbeetle-emulator` is our emulator. A rehearsal: all three are lost with this machine.
"""

from cluster import config
from cluster.config.inventory import on_this_machine
from cluster.runtimes import image

hosts = on_this_machine("local", engine=image.engine_of(config.load_or_exit()), runtime="compose")
