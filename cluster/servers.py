"""What users' own inventory files import; see ``inventories/production.example.py``."""

from cluster.config.servers import on_servers

__all__ = ["on_servers"]
