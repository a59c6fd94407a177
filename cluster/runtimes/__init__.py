"""How replicas are run: all that differs between processes, Compose, systemd and Docker."""
