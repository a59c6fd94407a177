#!/bin/sh
# Print what a server is like, one `key value` a line, for cluster/checks/facts.py. Changes nothing:
# the file that tries direct I/O is removed again.
# Usage: observe.sh NAME DIRECTORY PORT [PEER_IP:PORT]...
set -u
name=$1 directory=$2 port=$3
shift 3

say() { printf '%s\n' "$*"; }

say kernel "$(uname -r)"
say machine "$(uname -m)"
say io_uring_disabled "$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 0)"
say memory_kib "$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)"
say systemd "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
say docker "$(timeout 10 docker version --format '{{.Server.Version}}' 2>/dev/null)"
say compose "$(timeout 10 docker compose version --short 2>/dev/null)"
# What starts its containers can grant them no more than its own: capabilities, limit, namespace.
engine=$(pgrep -o -x containerd)
[ -z "$engine" ] || say engine_limits \
  "$(sed -n 's/^CapEff:[[:space:]]*//p' "/proc/$engine/status")" \
  "$(sed -n 's/^Max locked memory *[^ ]* *\([^ ]*\) .*/\1/p' "/proc/$engine/limits")" \
  "$(cat "/proc/$engine/uid_map")"
for address in $(ip -o -4 addr show 2>/dev/null | sed 's/.* inet \([0-9.]*\).*/\1/'); do
  say address "$address"
done

existing=$directory
while [ ! -d "$existing" ]; do
  # What is there is no directory, and no link to one.
  if [ -e "$existing" ] || [ -L "$existing" ]; then say obstacle "$existing"; fi
  existing=$(dirname "$existing")
done
say place "$(readlink -m "$directory")"
for path in "$(dirname "$directory")" "$directory" "$directory"/*.tigerbeetle; do
  [ -L "$path" ] && say link "$path" "$(readlink -m "$path")"
done
# A deploy opens the directories that it makes; those above them are somebody else's.
above=$(dirname "$(dirname "$directory")")
while [ ! -d "$above" ]; do above=$(dirname "$above"); done
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
  setpriv --reuid=10001 --regid=10001 --clear-groups test -x "$above" || say unreachable "$above"
fi
say filesystem "$(stat --file-system --format=%T "$existing")"
say disk_kib "$(df -Pk "$existing" | sed -n '2s/^[^ ]* *[0-9]* *[0-9]* *\([0-9]*\) .*/\1/p')"
if probe=$(mktemp "$existing/.direct-io-XXXXXX" 2>/dev/null); then
  if dd if=/dev/zero of="$probe" bs=4096 count=1 oflag=direct conv=notrunc 2>/dev/null; then
    say direct_io yes
  fi
  rm -f "$probe"
fi

say python "$(python3 --version 2>/dev/null | sed 's/^Python //')"
# The account of the data files: whose its numbers are, and which ones its names have.
say owner "$(getent passwd 10001 | cut -d: -f1)"
say user "$(getent passwd tigerbeetle | cut -d: -f3)"
say group_owner "$(getent group 10001 | cut -d: -f1)"
say group "$(getent group tigerbeetle | cut -d: -f3)"
say account "$(getent passwd tigerbeetle | cut -d: -f3,4,6,7)"
[ -e "$directory/bootstrapping" ] && say bootstrapping yes
for file in "$directory"/*.tigerbeetle; do
  [ -f "$file" ] || continue
  # The superblock's four copies; mostly zeros, so a few hundred characters.
  head="$(dd if="$file" bs=98304 count=1 2>/dev/null | gzip | base64 --wrap=0)"
  say data_file "$(basename "$file")" "$(stat --dereference --format=%s "$file")" "$head" \
    "$(stat --dereference --format=%u:%g "$file")"
done

for file in "$directory"/*.tigerbeetle.*; do
  [ -f "$file" ] && say leftover "$(basename "$file")"
done

pid=$(systemctl show "$name.service" --property=MainPID --value 2>/dev/null)
say unit "$pid"
# The settings with which it runs: from the process itself, not from the unit's file.
[ "${pid:-0}" = 0 ] ||
  say settings "$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^WALLET_SERVICE_SETTINGS=//p')"
[ "${pid:-0}" = 0 ] || say arguments "$(tr '\0' ' ' <"/proc/$pid/cmdline")"
inspected=$(timeout 10 docker inspect --type=container --format \
  '{{.State.Pid}} {{index .Config.Labels "wallet-service.settings"}} {{join .Config.Cmd " "}}' \
  "$name" 2>/dev/null)
say container "${inspected%% *}"
inspected=${inspected#* }
[ -z "$inspected" ] || say settings "${inspected%% *}"
[ -z "$inspected" ] || say arguments "${inspected#* }"
hex=$(printf ':%04X' "$port")
sed -n "s/^ *[0-9]*: \([0-9A-F]*\)$hex [0-9A-F:]* 0A .*/listening \1/p" /proc/net/tcp /proc/net/tcp6 2>/dev/null
say holder "$(ss -Hltnp "sport = :$port" 2>/dev/null | sed -n '1s/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/pid \2 (\1)/p')"

for peer in "$@"; do
  (
    # A refusal comes from the server itself: it can be reached, and nothing listens there yet.
    # shellcheck disable=SC2016 # bash expands it
    if said=$(timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "${peer%:*}" "${peer#*:}" 2>&1); then
      say peer "$peer" open
    elif [ "${said%%refused*}" != "$said" ]; then
      say peer "$peer" refused
    else
      say peer "$peer" silent
    fi
  ) &
done
wait

say clock_synchronised "$(timedatectl show --property=NTPSynchronized --value 2>/dev/null)"
say clock "$(date +%s.%N)"
