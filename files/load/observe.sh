#!/bin/sh
# Print what a host is like for workers of a load, one `key value` a line, for
# loadtests/hosts/observed.py. Changes nothing. Arguments: the replicas' addresses, IP:PORT.
set -u

say() { printf '%s\n' "$*"; }

say systemd "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
say machine "$(uname -m)"
say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
say cpus "$(getconf _NPROCESSORS_ONLN)"
say memory_mib "$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)"
say disk_mib "$(df -Pm /var/lib | awk 'NR == 2 { print $4 }')"
say io_uring_disabled "$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 0)"
for program in systemd-run tar gzip; do
  command -v "$program" >/dev/null && say program "$program"
done
for bundle in /usr/local/lib/wallet-load/*; do
  [ -d "$bundle" ] && say bundle "${bundle##*/}"
done
for run in /var/lib/private/wallet-load/*; do
  [ -d "$run" ] && say run "${run##*/}"
done
systemctl list-units --plain --no-legend --state=active,activating,deactivating 'wallet-load-*' |
  while read -r unit _; do say unit "$unit"; done
for name in python3 python3.14 python3.13 python3.12 python3.11; do
  python=$(command -v "$name") || continue
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || continue
  say python "$version" "$python"
  "$python" - "$@" <<'END' && break
import socket
import sys
import time

if sys.version_info < (3, 11):
    sys.exit(1)
for address in sys.argv[1:]:
    ip, _, port = address.rpartition(":")
    took = []
    try:
        for _ in range(3):
            asked = time.perf_counter()
            with socket.create_connection((ip, int(port)), timeout=2) as connection:
                took.append(1000 * (time.perf_counter() - asked))
                own = connection.getsockname()[0]
        print("reached", address, own, f"{min(took):.3f}")
    except OSError as error:
        print("missed", address, error)
with socket.create_server(("127.0.0.1", 0)) as free:
    print("free_port", free.getsockname()[1])
END
done
exit 0
