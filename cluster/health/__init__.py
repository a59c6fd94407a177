"""How is the cluster? Its health, status, logs, and what the doctor finds."""
