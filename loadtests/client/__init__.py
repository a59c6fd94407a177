"""The official client under gevent: records, packing, and what can be asked of a ledger."""
