"""Load that can be believed: wallets through the official client, and the proof afterwards.

From the wire up: ``records`` (layouts), ``bridge`` (native client under gevent), ``ledger`` (what
can be asked of a cluster), ``wallets`` and ``bank`` (the wallet model and its actions),
``meter`` and ``histogram`` (what is measured), ``arrivals`` and ``shapes/`` (how much load),
``runs`` and ``result`` (what a run leaves on disk), ``proof`` (what must hold, pure) and ``audit``
(reads the ledger for it), ``report`` and ``plots``, ``gate``, ``compare``, ``search``/``capacity``.
``migration`` (pure) and ``migrate`` move a whole ledger into a new cluster.
``session`` is one worker's part of a run, ``conductor`` the master's; ``users`` and ``locustfile``
put them behind locust; ``python -m loadtests`` runs all of it in one go.
"""
