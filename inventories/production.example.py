"""Servers of your own: one replica on each, over SSH. Copy this to inventories/production.py.

    make init-env HOSTS="10.0.0.11 10.0.0.12 10.0.0.13"     # addresses, cluster id, token: private
    cp inventories/production.example.py inventories/production.py
    make up INVENTORY=inventories/production.py BOOTSTRAP=yes   # BOOTSTRAP only for the first time

Neither the copy nor the env file is ever committed. Three servers survive the loss of one; six the
loss of two: name six addresses in HOSTS. docs/servers.md goes through a first deployment.
"""

from cluster.servers import on_servers

hosts = on_servers(
    "production",
    # The replicas' addresses, in order, with cluster id, token, release and sizes.
    env_file="env/production.env",
    # "systemd": the server as a hardened unit, without Docker; what TigerBeetle recommends.
    # "docker": a hardened container with the host's network, from our image.
    runtime="systemd",
    # "emulator" only to rehearse a deployment: one node without replication.
    engine="tigerbeetle",
    # SSH: names in replica order, if they are not the replicas' own addresses; an alias of
    # ~/.ssh/config is one, too. A name may say more: "admin@db0.example.com:2222".
    # ssh_hosts=("db0.example.com", "db1.example.com", "db2.example.com"),
    # For names that do not say it; None: what ssh_config has for them. A user other than root needs
    # sudo without a password. docs/servers.md has a table of what works.
    ssh_user="root",
    ssh_port=22,
    # ssh_key="~/.ssh/id_ed25519",
    # ssh_known_hosts_file="~/.ssh/known_hosts",
    # ssh_config_file="~/.ssh/config",
    # Where each server keeps its data file: a disk of its own, not shared with another replica.
    data_dir="/var/lib/tigerbeetle",
    # Who may reach the replicas' ports, beside the replicas: a firewall keeps all others out.
    # TigerBeetle has no authentication: name as few as you can.
    clients=("10.0.9.0/24",),
    # A host that watches the replicas: Prometheus, its alerts and the replicas' metrics, brought
    # there by `make monitor-up`. Its SSH name, reached as the servers are; its address is the one
    # in LU_CFG_TIGERBEETLE_STATSD. Not one of the servers: it must not fail with what it watches.
    # It may reach the replicas' ports, which it probes. docs/monitoring.md
    # monitoring_host="monitor.example.com",
    # Where Prometheus listens there: on loopback, to be reached through SSH, or at one address of
    # the host. It asks nobody for a password.
    # monitoring_bind="127.0.0.1",
    # Who is told of an alert: your Alertmanagers. Without one, Prometheus' page shows it.
    # alertmanagers=("10.0.0.30:9093",),
    # Hosts that send the load of `make load` and `make capacity`, instead of this machine: their
    # SSH names, reached as the servers are. They need systemd and Python 3.11, and nothing more.
    # One that is named by its address is let in by the firewall, like a client; the address of
    # another belongs in `clients`. docs/load.md
    # load_hosts=("10.0.9.21", "10.0.9.22"),
    # Debian's node exporter on each server, which that host reads: for the alerts on full disks and
    # wrong clocks. Installed where it is missing, which needs a package index.
    # node_exporter=True,
    # How this machine reaches the ports, for status, verify and load: "direct" as a listed client,
    # "tunnel" through SSH, "auto" direct if one of this machine's addresses is a client's.
    reach="auto",
    # runtime "docker": "ship" the image from here (docker save and load: no registry is needed), or
    # "build" it on each server, whose engine pulls the base, by its digest once that is recorded.
    image_from="ship",
    # False only where no time service can run. Replicas need clocks that agree.
    check_clock=True,
    # True for a rehearsal: allows cluster id 0, the published token, two replicas on one machine.
    development=False,
)
