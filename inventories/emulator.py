"""The emulator, on this machine: for when neither Docker nor a tigerbeetle binary can be had.

One node without replication behind three addresses. It shows how everything here works, and
nothing about what TigerBeetle carries or survives.
"""

from cluster.config.inventory import on_this_machine

hosts = on_this_machine("emulator", engine="emulator", runtime="process")
