"""The cluster: what it should be (config), where it runs (inventory), and how it does (health).

Layers, lowest first; no module imports upward:

- ``model``, ``rules``  a ``Cluster``, and what it must keep to; pure
- ``config``      one frozen, validated ``Cluster`` from ``env/tigerbittle.env``
- ``binary``, ``data_file``, ``log``  what a server says of itself, parsed; pure
- ``waiting``     bounded waits that tell what they last saw
- ``ping``        one question that every replica answers without a session
- ``log_lines``   what the lines of a log mean; ``watch`` follows them
- ``canary``      one commit and one read through the official client
- ``servers``, ``inventory``  a pyinfra inventory read as a ``Deployment``
- ``layout``, ``description``  where things are on a server, and what its replica runs by; pure
- ``observation``, ``fitness``  what servers say of themselves, and whether that will do
- ``ssh``, ``units``, ``tunnel``  a server's replica asked and reached from here
- ``rollout``     one replica after the other, gated, whatever is done to each
- ``upgrade_path``, ``upgrade``  which releases may follow which, and ``make upgrade``
- ``health``, ``status``, ``pin``  the commands behind the Makefile
"""
