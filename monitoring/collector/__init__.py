"""TigerBeetle's StatsD datagrams as Prometheus metrics; shipped to a host as one file."""
