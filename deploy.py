"""Deploy a TigerBeetle cluster: ``pyinfra INVENTORY deploy.py`` (or ``make up INVENTORY=...``).

Safe to repeat: a second run changes nothing and restarts nothing.
"""

from tasks import data_file, preflight, replica

# Checks. No impact: nothing is changed until every one of them has passed.
preflight.check_state_directory()
preflight.check_server()
preflight.check_data_files()
preflight.check_ports()
preflight.check_room()

# Changes. Each does nothing where its work is already done.
data_file.format_once()
replica.start()
replica.wait_until_committing()
