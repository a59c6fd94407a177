"""Hosts that send a load: what they are like, what is brought there, and the workers they run.

- ``observed``  what a host is like, and whether it is fit
- ``clock``     how far a host's clock is off from this machine's
- ``bundle``    what is brought: the locked environment, and our own code
- ``inventory`` the hosts as pyinfra's, for ``tasks.load_host``
- ``units``     the shell lines that start and stop a worker there
- ``record``    the workers' records, brought here
- ``crew``      all of it for one command: muster, work, gather
"""
