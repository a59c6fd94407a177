"""The node: sessions, journal, sockets, and the faults that tests ask for."""
