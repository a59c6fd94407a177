"""Is this machine, or are these servers, fit for the replicas? Asked before any change."""
