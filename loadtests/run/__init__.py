"""One run: how much load, what is measured, and what it leaves on disk."""
