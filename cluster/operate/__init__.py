"""What is done to a whole cluster: rolled, backed up, restored, recovered, upgraded, migrated."""
