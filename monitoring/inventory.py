"""pyinfra's inventory of ``make monitor-up``: where the monitoring of $INVENTORY runs."""

from monitoring import host

hosts = host.of_inventory()
