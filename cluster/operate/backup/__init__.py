"""Backups: taken, kept as sets, proven in a scratch cluster, and restored."""
