"""A whole ledger into a new, empty cluster: ``plan`` ← ``clusters`` ← ``passes`` ← ``command``."""
