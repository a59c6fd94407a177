"""What must hold of a ledger after a run, and of a history of operations."""
