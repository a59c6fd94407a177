"""Load that can be believed: wallets through the official client, and the proof afterwards.

From the wire up: ``records`` (layouts), ``bridge`` (native client under gevent), ``ledger`` (what
can be asked of a cluster), ``wallets`` and ``bank`` (the wallet model and its actions),
``meter`` and ``histogram`` (what is measured), ``arrivals`` and ``shapes/`` (how much load),
``runs`` and ``result`` (what a run leaves on disk), ``audit`` (the proof), ``report``, ``gate``.
``locustfile`` puts them behind locust; ``python -m loadtests`` runs all of it in one go.
"""
