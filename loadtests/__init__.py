"""Load that can be believed: wallets through the official client, and the proof afterwards.

Rooms, lowest first; no module imports upward:

- ``client``  the native client under gevent, and TigerBeetle's records as columns; stands alone
- ``run``     what a run measures and leaves on disk: its target, load, figures, record, history
- ``traffic`` what a load stands for: scenarios, mixes of actions, arrival profiles
- ``wallet``  the wallet model and its actions, and the users and the session that perform them
- ``proof``   what must hold afterwards, and the audit and the checker that read whether it does
- ``report``  what people and CI jobs are shown: report, gate, comparison, recovery times

- ``hosts``   other machines that send the load; beside these rooms, on ``client``

On top, a command each: ``load`` (all of it in one go), ``audit``, ``capacity`` (the search for the
most that a cluster carries), ``workload`` (a recorded run) and ``check``, its judge. ``locustfile``
(with its ``options``, and the web UI's ``form``) and ``shapes/`` are for locust; ``scenarios/`` and
``profiles/`` hold files that describe traffic.
"""
