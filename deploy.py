"""Deploy a TigerBeetle cluster: ``pyinfra INVENTORY deploy.py`` (or ``make up INVENTORY=...``).

Safe to repeat: a second run changes nothing and restarts nothing. Each list is in two halves:
checks without impact, of which every one must pass; then changes, each of which does nothing where
its work is already done.
"""

from pyinfra import host

from tasks import (
    compose,
    data_file,
    docker,
    exporter,
    firewall,
    image,
    preflight,
    program,
    replica,
    servers,
)
from tasks import host as machine

if host.data.runtime == "process":
    preflight.check_state_directory()
    preflight.check_server()
    preflight.check_data_files()
    preflight.check_ports()
    preflight.check_room()

    data_file.format_once()
    replica.start()
    replica.wait_until_committing()

if host.data.runtime == "compose":
    docker.install_if_asked()
    docker.check_engine()
    compose.check_readiness()

    image.build()
    compose.format_once()
    compose.start()
    compose.wait_until_committing()

if host.data.runtime == "systemd":
    preflight.check_servers()
    program.check()
    firewall.check()
    exporter.check()

    machine.prepare()
    firewall.apply()
    exporter.run()
    program.ship()
    servers.describe()
    data_file.format_once_on_servers()
    servers.start()
    servers.wait_until_committing()

if host.data.runtime == "docker":
    preflight.check_servers()
    image.check_on_servers()
    firewall.check()
    exporter.check()

    machine.prepare()
    firewall.apply()
    exporter.run()
    servers.describe()
    image.bring()
    data_file.format_once_on_servers()
    servers.start()
    servers.wait_until_committing()
