"""Three genuine TigerBeetle replicas as processes on this machine: no Docker needed.

The binary is $TIGERBEETLE_BIN, else `tigerbeetle` on PATH, else the pinned release that
`make download` has brought. All three share one machine: a rehearsal, not fault tolerance.
"""

from cluster.config.inventory import on_this_machine

hosts = on_this_machine("process", engine="tigerbeetle", runtime="process")
