"""The genuine server's command line: what it refuses is refused, what it takes is taken."""
