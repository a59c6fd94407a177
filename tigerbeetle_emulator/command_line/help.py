"""What `--help` prints."""

from __future__ import annotations

from ..server.faults import DURATIONS, FIELDS

BANNER = "EMULATOR: one node, no replication, not TigerBeetle; for tests and rehearsals only"
_HELP = """\
  tigerbeetle-emulator format [--cluster=N] --replica=N --replica-count=N PATH
  tigerbeetle-emulator start --addresses=ADDRESSES [OPTIONS] PATH
  tigerbeetle-emulator inspect superblock PATH
  tigerbeetle-emulator version [--verbose]

Every option of the genuine server is taken, and named in the log where it has no effect here.
These have one:

  --addresses=ADDRESSES         of all replicas, in order: ip:port, [ipv6]:port, ip or port.
                                Exactly 0: listen on a free port, print it, close stdout, and end
                                when stdin closes
  --development                 8 clients at once, requests of 32KiB
  --experimental                allow these:
  --limit-pipeline-requests=N   queued requests, 0..57: 8 more clients can be connected (24)
  --limit-request=SIZE          largest message, 4KiB..1MiB
  --log-debug                   log what is dropped, too

The emulator's own:

  --sync=never|every-request    when the data file reaches the disk: left to the system (a killed
                                process loses nothing, a power failure may), or before every reply
  --serve-all                   listen on all addresses, not only on its own

Faults, for testing clients (durations in seconds, rates from 0 to 1):

"""


def help_text() -> str:
    """All verbs and options that do something."""
    lines = [f"  --fault-{name.replace('_', '-')}={_metavar(name)}" for name in FIELDS]
    return f"{BANNER}\n\n{_HELP}" + "\n".join(lines) + "\n"


def _metavar(name: str) -> str:
    return "N" if name == "seed" else "SECONDS" if name in DURATIONS else "RATE"
