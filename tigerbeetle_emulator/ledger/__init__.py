"""The state machine: accounts, transfers, queries, and their statuses. Pure."""
