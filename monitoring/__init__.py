"""The collector: TigerBeetle's StatsD datagrams as Prometheus metrics, where no image can be had.

- ``datagram``   DogStatsD lines, parsed; pure
- ``naming``     which Prometheus metric a line is; ``statsd_exporter`` gets the same as a file
- ``series``     the newest value of each series, and when a gauge has gone stale; pure
- ``textfile``   metrics that are kept in files
- ``collector``  UDP in, HTTP out: ``python -m monitoring.collector.collector``
- ``planned``    tell the alerts that a replica stops on purpose
"""
