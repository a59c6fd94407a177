"""Deploy a TigerBeetle cluster: ``pyinfra INVENTORY deploy.py`` (or ``make up INVENTORY=...``).

Safe to repeat: a second run changes nothing and restarts nothing. First come the checks without
impact, of which every one must pass; then changes, each of which does nothing where its work is
already done. All of them do what the deployment's runtime needs.
"""

from tasks import data_file, docker, exporter, firewall, preflight, program, replica
from tasks import host as machine
from tasks.support.here import is_server

docker.install_if_asked()
preflight.check()

if is_server():
    firewall.check()
    exporter.check()

    machine.prepare()
    firewall.apply()
    exporter.run()

program.bring()
data_file.format_once()
replica.start()
replica.wait_until_committing()
