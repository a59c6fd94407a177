"""Command lines and what they are told; and a source of random ones.

Each names a data file that is not there, so that nothing is started.
"""

from __future__ import annotations

import random

TAKEN = "taken"
_START = "start --addresses=3000"
_MORE = f"{_START} --experimental"
_FORMAT = "format --replica=0 --replica-count=1 --cluster=1"

# What a line is told: the last words of the genuine server, or that it is taken.
LINES = {
    # syntax
    f"{_START} no/file": TAKEN,
    "start no/file --addresses=3000": "unexpected trailing option: '--addresses=3000'",
    f"{_START} no/file --development": "unexpected trailing option: '--development'",
    f"{_START} no/file more": "unexpected argument: 'more'",
    f"{_START} --addresses=3001 no/file": "--addresses: duplicate argument",
    f"{_START} --development --development no/file": "--development: duplicate argument",
    f"{_START} --development=true --development=false no/file": "--development: duplicate argument",
    "start --addresses 3000 no/file": "--addresses: expected value separator '='",
    "start --addresses= no/file": "--addresses: argument requires a value",
    "start --addressesx=1 no/file": "--addresses: expected value separator '=', but found 'x'",
    "start --address=3000 no/file": "unexpected argument: '--address=3000'",
    "start --addr=3000 no/file": "unexpected argument: '--addr=3000'",
    "start no/file": "--addresses: argument is required",
    _START: "<path>: argument is required",
    f"{_START} ''": "<path>: empty argument",
    f"{_START} -": "unexpected argument: '-'",
    f"{_START} --": "unexpected argument: '--'",
    f"{_START} --nonsense no/file": "unexpected argument: '--nonsense'",
    f"{_START} -h": "unexpected argument: '-h'",
    f"{_START} --help": "unexpected argument: '--help'",
    "nonsense": "unknown subcommand: 'nonsense'",
    "''": "unknown subcommand: ''",
    "": "subcommand required, expected 'format', 'recover', 'start', ",
    "inspect": "subcommand required, expected 'constants', 'metrics', ",
    "inspect nonsense": "unknown subcommand: 'nonsense'",
    "inspect superblock": "<path>: argument is required",
    "inspect superblock --x": "unexpected argument: '--x'",
    "inspect superblock no/file more": "unexpected argument: 'more'",
    "inspect superblock no/file": TAKEN,
    "version more": "unexpected argument: 'more'",
    "version --verbose --verbose": "--verbose: duplicate argument",
    "version --verbose=": "--verbose: argument requires a value",
    "version --verbose=yes": "--verbose: expected one of 'true' or 'false', but found 'yes'",
    "version": TAKEN,
    "version --verbose=false": TAKEN,
    "--help": TAKEN,
    "-h": TAKEN,
    "inspect --help": TAKEN,
    # switches with a value
    f"{_START} --development=true no/file": TAKEN,
    f"{_START} --development=false no/file": TAKEN,
    f"{_START} --experimental=true --aof no/file": TAKEN,
    f"{_START} --experimental=false --aof no/file": "--aof is marked experimental",
    f"{_START} --development=TRUE no/file": "--development: expected one of 'true' or 'false'",
    f"{_START} --development=1 no/file": "--development: expected one of 'true' or 'false'",
    # what needs --experimental
    f"{_START} --statsd=127.0.0.1:1 no/file": "--statsd is marked experimental, add `--experi",
    f"{_START} --limit-storage=2GiB no/file": "--limit-storage is marked experimental",
    f"{_START} --cache-accounts=1MiB no/file": "--cache-accounts is marked experimental",
    f"{_START} --cache-transfers=1MiB no/file": "--cache-transfers is marked experimental",
    f"{_START} --cache-transfers-pending=1MiB no/file": "--cache-transfers-pending is marked",
    f"{_START} --limit-pipeline-requests=1 no/file": "--limit-pipeline-requests is marked",
    f"{_START} --limit-request=8KiB no/file": "--limit-request is marked experimental",
    f"{_START} --memory-lsm-manifest=2MiB no/file": "--memory-lsm-manifest is marked",
    f"{_START} --memory-lsm-compaction=64MiB no/file": "--memory-lsm-compaction is marked",
    f"{_START} --trace=no/trace no/file": "--trace is marked experimental",
    f"{_START} --log-debug no/file": "--log-debug is marked experimental",
    f"{_START} --log-trace no/file": "--log-trace is marked experimental",
    f"{_START} --timeout-prepare-ms=10 no/file": "--timeout-prepare-ms is marked experimental",
    f"{_START} --timeout-grid-repair-message-ms=10 no/file": "--timeout-grid-repair-message-ms is",
    f"{_START} --commit-stall-probability=1/2 no/file": "--commit-stall-probability is marked",
    f"{_START} --commit-stall-lag-min=1 no/file": "--commit-stall-lag-min is marked experimental",
    f"{_START} --commit-stall-lag-max=1 no/file": "--commit-stall-lag-max is marked experimental",
    f"{_START} --commit-stall-multiple-max=1 no/file": "--commit-stall-multiple-max is marked",
    f"{_START} --replicate-star no/file": "--replicate-star is marked experimental",
    f"{_START} --aof-file=a.aof no/file": "--aof-file is marked experimental",
    f"{_START} --aof-recovery no/file": "--aof-recovery is marked experimental",
    f"{_START} --statsd=1 --aof no/file": "--statsd is marked experimental",  # of two, the first
    f"{_START} --cache-grid=64MiB no/file": TAKEN,
    f"{_START} --aof=false no/file": TAKEN,
    f"{_MORE} --statsd=127.0.0.1:1 --aof-file=a.aof --aof-recovery --replicate-star "
    "--commit-stall-probability=0 --commit-stall-lag-min=1 --commit-stall-lag-max=2 "
    "--commit-stall-multiple-max=65535 --timeout-prepare-ms=10 --log-debug --log-trace "
    "--timeout-grid-repair-message-ms=20 --memory-lsm-compaction=64MiB --cache-accounts=0 "
    "--memory-lsm-manifest=2MiB --limit-request=8KiB --limit-pipeline-requests=0 "
    "--cache-transfers-pending=1TiB --limit-storage=2GiB no/file": "--cache-transfers-pending: e",
    # sizes
    f"{_MORE} --limit-request=1mib no/file": TAKEN,
    f"{_MORE} --limit-request=8192bytes no/file": TAKEN,
    f"{_MORE} --limit-request=1_0_24__0 no/file": TAKEN,
    f"{_MORE} --limit-request=4095 no/file": "--limit-request: size 4095 is below minimum: 4KiB",
    f"{_MORE} --limit-request=4096kib no/file": "--limit-request: size 4096KiB exceeds maximum",
    f"{_MORE} --limit-request=10GB no/file": "--limit-request: invalid unit in size, needed KiB",
    f"{_MORE} --limit-request=MiB no/file": "--limit-request: expected a size, but found: 'MiB'",
    f"{_MORE} --limit-request=1_KiB no/file": "--limit-request: expected a size, but found",
    f"{_MORE} --limit-request=1.5MiB no/file": "--limit-request: invalid unit in size",
    f"{_MORE} --limit-request=-1 no/file": "--limit-request: expected a size, but found: '-1'",
    f"{_MORE} --limit-request=0009KiB no/file": "--limit-request: leading zero disallowed",
    f"{_MORE} --limit-request=18446744073709551616 no/file": "--limit-request: value exceeds 64",
    f"{_MORE} --limit-request=18446744073709551GiB no/file": "--limit-request: size in bytes exc",
    f"{_START} --cache-grid=2048TiB no/file": "--cache-grid: exceeds the limit",
    f"{_START} --cache-grid=2047TiB no/file": TAKEN,
    f"{_START} --cache-grid=1GB no/file": "--cache-grid: invalid unit in size",
    f"{_MORE} --cache-accounts=512GiB no/file": "--cache-accounts: exceeds the limit",
    f"{_MORE} --cache-accounts=549755813887 no/file": TAKEN,
    f"{_MORE} --cache-transfers=512GiB no/file": "--cache-transfers: exceeds the limit",
    f"{_MORE} --cache-transfers-pending=68719476735 no/file": TAKEN,
    f"{_MORE} --limit-storage=1114624KiB no/file": TAKEN,
    f"{_MORE} --limit-storage=1114620KiB no/file": "--limit-storage: size 1114620KiB is below",
    f"{_MORE} --limit-storage=64TiB no/file": TAKEN,
    f"{_MORE} --limit-storage=65TiB no/file": "--limit-storage: size 65TiB exceeds maximum: 64TiB",
    f"{_MORE} --limit-storage=10000000001 no/file": "--limit-storage: size 10000000001 must be a "
    "multiple of sector size (4KiB)",
    f"{_MORE} --memory-lsm-manifest=0 no/file": "--memory-lsm-manifest: size 0 is below minimum",
    f"{_MORE} --memory-lsm-manifest=4096MiB no/file": "--memory-lsm-manifest: size 4096MiB exceeds",
    f"{_MORE} --memory-lsm-manifest=1048577 no/file": "--memory-lsm-manifest: size 1048577 must",
    f"{_MORE} --memory-lsm-compaction=10752KiB no/file": TAKEN,
    f"{_MORE} --memory-lsm-compaction=10240KiB no/file": "--memory-lsm-compaction: size 10240KiB",
    f"{_MORE} --memory-lsm-compaction=2199023255552KiB no/file": "--memory-lsm-compaction: size 2",
    f"{_MORE} --memory-lsm-compaction=20000001 no/file": "--memory-lsm-compaction: size 20000001",
    # numbers, and values that depend on others
    f"{_MORE} --limit-pipeline-requests=57 no/file": TAKEN,
    f"{_MORE} --limit-pipeline-requests=58 no/file": "--limit-pipeline-requests: count 58 exceeds",
    f"{_MORE} --limit-pipeline-requests=-1 no/file": "--limit-pipeline-requests: expected an inte",
    f"{_MORE} --limit-pipeline-requests=01 no/file": "--limit-pipeline-requests: leading zero dis",
    f"{_MORE} --limit-pipeline-requests=4294967296 no/file": "--limit-pipeline-requests: value ex",
    f"{_MORE} --commit-stall-multiple-max=65536 no/file": "--commit-stall-multiple-max: value exc",
    f"{_MORE} --commit-stall-probability=4/3 no/file": "--commit-stall-probability: ratio greater",
    f"{_MORE} --commit-stall-probability=1/0 no/file": "--commit-stall-probability: denominator is",
    f"{_MORE} --commit-stall-probability=x no/file": "--commit-stall-probability: expected 'a/b'",
    f"{_MORE} --commit-stall-probability=x/1 no/file": "--commit-stall-probability: invalid numera",
    f"{_MORE} --commit-stall-probability=1/x no/file": "--commit-stall-probability: invalid denomi",
    f"{_MORE} --timeout-prepare-ms=0 no/file": "--timeout-prepare-ms: timeout 0ms be nonzero",
    f"{_MORE} --timeout-prepare-ms=15 no/file": "--timeout-prepare-ms: timeout 15ms must be a mult",
    f"{_MORE} --statsd=x no/file": "--statsd: invalid port",
    f"{_MORE} --statsd=localhost:1 no/file": "--statsd: invalid IPv4 or IPv6 address",
    f"{_MORE} --statsd=::1 no/file": "--statsd: invalid address with more than one colon",
    f"{_MORE} --aof-file=a no/file": "--aof-file must end with .aof: 'a'",
    f"{_MORE} --aof --aof-file=a.aof no/file": "--aof is mutually exclusive with --aof-file",
    f"{_MORE} --log-trace no/file": "--log-debug must be provided when using --log-trace",
    f"{_MORE} --log-trace --log-debug no/file": TAKEN,
    # addresses
    "start --addresses=0 no/file": TAKEN,
    "start --addresses=127.0.0.1 no/file": TAKEN,
    "start --addresses=127.0.0.1:0,[::1]:3002,3003 no/file": TAKEN,
    "start --addresses=[0001::00002]:1 no/file": TAKEN,
    "start --addresses=3000,3000 no/file": TAKEN,
    "start --addresses=1,2,3,4,5,6,7,8,9,10,11,12 no/file": TAKEN,
    "start --addresses=1,2,3,4,5,6,7,8,9,10,11,12,13 no/file": "--addresses: too many addresses",
    "start --addresses=3000, no/file": "--addresses: invalid trailing comma: '3000,'",
    "start --addresses=00 no/file": "--addresses: invalid port: '00'",
    "start --addresses=03000 no/file": "--addresses: invalid port: '03000'",
    "start --addresses=65536 no/file": "--addresses: invalid port: '65536'",
    "start --addresses=127.0.0.1: no/file": "--addresses: invalid port: '127.0.0.1:'",
    "start '--addresses=3000, 3001' no/file": "--addresses: invalid port: '3000, 3001'",
    "start --addresses=localhost:3000 no/file": "--addresses: invalid IPv4 or IPv6 address: 'loc",
    "start --addresses=01.2.3.4 no/file": "--addresses: invalid IPv4 or IPv6 address: '01.2.3.4'",
    "start --addresses=::1 no/file": "--addresses: invalid address with more than one colon: '::1'",
    "start --addresses=[::ffff:1.2.3.4]:1 no/file": "--addresses: invalid IPv4 or IPv6 address",
    "start --addresses=1.2.3.4:３ no/file": "--addresses: invalid port",
    # format
    f"{_FORMAT} no/file": TAKEN,
    f"{_FORMAT} --development=true --log-debug no/file": TAKEN,
    "format --replica=0 --replica-count=1 no/file": TAKEN,  # a random cluster id
    "format --standby=3 --replica-count=3 --cluster=1_0 no/file": TAKEN,
    f"format no/file {_FORMAT[7:]}": "unexpected trailing option: '--replica=0'",
    f"{_FORMAT} --cluster=2 no/file": "--cluster: duplicate argument",
    f"{_FORMAT} --experimental no/file": "unexpected argument: '--experimental'",
    f"{_FORMAT} --standby=1 no/file": "--standby: conflicts with '--replica'",
    "format --standby=1 --replica-count=3 no/file": "--standby: value is too small (1), at least 3",
    "format --standby=9 --replica-count=3 no/file": "--standby: value is too large (9), at most 8",
    "format --replica=3 --replica-count=3 no/file": "--replica: value is too large (3), at most 2",
    "format --replica=0 --replica-count=7 no/file": "--replica-count: value is too large (7), at",
    "format --replica=0 --replica-count=0 no/file": "--replica-count: value needs to be greater",
    "format --replica=0 no/file": "--replica-count: argument is required",
    "format --replica-count=1 no/file": "--replica: argument is required",
    "format --replica=256 --replica-count=1 no/file": "--replica: value exceeds 8-bit unsigned",
    "format --replica=00 --replica-count=1 no/file": "--replica: leading zero disallowed: '00'",
    "format --replica=x --replica-count=1 no/file": "--replica: expected an integer value, but fo",
    f"format --cluster={1 << 128} --replica=0 --replica-count=1 no/file": "--cluster: value exc",
    "format --cluster=0x1 --replica=0 --replica-count=1 no/file": "--cluster: leading zero disall",
    "format --cluster=-1 --replica=0 --replica-count=1 no/file": "--cluster: expected an integer",
}


_SIZES = """0 1 4096 4KiB 1mib 64MiB 2GiB 3TiB 65TiB 999999TiB 1GB KiB 1_0KiB _1KiB 1__0MiB 1.5MiB
    007MiB -1 5bytes 10752KiB"""
_NUMBERS = """0 1 3 10 57 58 256 70000 4294967296 01 1_0 _1 1_ a 9a 99999999999a 0x1 +1 -1 1.0
    18446744073709551616 340282366920938463463374607431768211456"""
_SWITCH = "NOTHING NOTHING NOTHING true false True 1 yes"
_ADDRESSES = """0 3000 3000,3001 1.2.3.4:5 [::1]:7 ::1 [::] host:1 1, 1,,2 1.2.3 1.2.3.4.5
    1.2.3.400:1 [1.2.3.4]:1 [::1 [1::2::3] [12345::]:1 65536 [0000001::1]:0 [:::]:1
    [1:2:3:4:5:6:7:8]:1 [1:2:3:4:5:6:7::]:1 [1:2:3:4:5:6:7:8::]:1 [::1:2:3:4:5:6:7:8]:1
    [] :1 1:2:3 [::g] 1.2.3.4:"""
_RATIOS = "0 1/2 2/1 1/0 0/0 1 x 1/ /1 1/2/3 01/2 1_0/20"
_TEXTS = "a.aof a .aof 1"
_KINDS: dict[str, list[tuple[str, str]]] = {  # names of flags, and what they are given
    "start": [
        ("addresses statsd", _ADDRESSES),
        ("cache-grid cache-accounts cache-transfers cache-transfers-pending", _SIZES),
        ("limit-storage limit-request memory-lsm-manifest memory-lsm-compaction", _SIZES),
        ("limit-pipeline-requests timeout-prepare-ms timeout-grid-repair-message-ms", _NUMBERS),
        ("commit-stall-lag-min commit-stall-lag-max commit-stall-multiple-max", _NUMBERS),
        ("development experimental log-debug log-trace", _SWITCH),
        ("replicate-star aof aof-recovery", _SWITCH),
        ("commit-stall-probability", _RATIOS),
        ("aof-file", _TEXTS),
    ],
    "format": [
        ("cluster replica replica-count standby", _NUMBERS),
        ("development log-debug", _SWITCH),
    ],
    "version": [("verbose", _SWITCH)],
}
_POOLS = {
    verb: {
        name: [value.replace("NOTHING", "") for value in values.split()]
        for names, values in kinds
        for name in names.split()
    }
    for verb, kinds in _KINDS.items()
}
_USUAL = {
    "start": ["--addresses=3000", "--experimental"],
    "format": ["--replica=0", "--replica-count=1"],
    "version": [],
}


def random_line(choose: random.Random) -> list[str]:
    """Mostly right, with a slip or two."""
    verb = choose.choices(["start", "format", "version"], [8, 3, 1])[0]
    pool = _POOLS[verb]
    flags = [flag for flag in _USUAL[verb] if choose.random() < 0.9]
    for name in choose.sample(sorted(pool), min(len(pool), choose.choice([0, 1, 1, 2, 3]))):
        value = choose.choice(pool[name])
        separator = "=" if value or choose.random() < 0.1 else ""
        flags.append(f"--{name}{separator}{value}")
    choose.shuffle(flags)
    path = [] if verb == "version" else ["no/file"]
    line = [*flags, *path]
    slip = choose.random()
    if slip < 0.05 and line:
        line.append(line.pop(choose.randrange(len(line))))
    elif slip < 0.1 and line:
        line.insert(choose.randrange(len(line)), choose.choice(line))
    elif slip < 0.15 and line:
        at = choose.randrange(len(line))
        line[at] = line[at].replace("=", choose.choice(["", "==", "x=", ":"]), 1)
    elif slip < 0.2:
        line.insert(
            choose.randrange(len(line) + 1), choose.choice(["", "-", "--", "more", "--x=1"])
        )
    elif slip < 0.23 and line:
        line.pop(choose.randrange(len(line)))
    return [verb, *line]
