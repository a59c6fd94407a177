"""The wire: messages, checksums, batches, operations, records and status codes."""
