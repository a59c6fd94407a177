#!/bin/sh
# Print which TigerBeetle servers run here, who started them and what else would, one `key value` a
# line, for cluster/checks/foreign.py; words that may have spaces in base64. Changes nothing.
# Usage: foreign.sh DIRECTORY PORT NOTE
set -u
directory=$1 port=$2 note=$3

say() { printf '%s\n' "$*"; }
one_word() { base64 --wrap=0; }
mounted_at() { findmnt --noheadings --output TARGET --target "$1"; }

# A data file that is held by the process of this number; 0: by none.
describe_file() {
  say file "$1" "$(printf %s "$2" | one_word)" "$(stat --format='%s %u %g %a %i' "$2")" \
    "$(stat --file-system --format=%T "$2" | tr ' ' _)" "$(mounted_at "$2" | one_word)"
  say head "$1" "$(dd if="$2" bs=98304 count=1 2>/dev/null | gzip | one_word)"
}

# Where a container's path is on this server: of mounts within mounts the innermost comes last.
outside() {
  docker inspect --type=container --format \
    '{{range .Mounts}}{{println .Destination .Source}}{{end}}' "$1" 2>/dev/null |
    sort | while read -r inner outer; do
      [ -z "$inner" ] || case $2 in "$inner"/*) say "$outer/${2#"$inner"/}" ;; esac
    done | tail -n 1
}

# The newest lines of its log, where that can be read: a file, the journal, or Docker's.
logged() {
  if [ -f "$1/fd/2" ]; then
    tail -c 200000 "$1/fd/2"
  elif [ -n "$2" ]; then
    timeout 10 docker logs --tail 1000 "$2" 2>&1
  else
    timeout 10 journalctl --quiet --output=cat --lines=1000 "_PID=${1#/proc/}" 2>/dev/null
  fi | grep -v 'orderly shutdown' | tail -n 400
}

existing=$directory
while [ ! -d "$existing" ]; do existing=$(dirname "$existing"); done
say mount "$(mounted_at "$existing" | one_word)"
if [ -f "$note" ]; then
  say note "$(one_word <"$note")"
  noted=$(head -n 1 "$note")
  [ ! -f "$noted" ] || describe_file 0 "$noted"
fi

listening=" $(ss -Hltnp "sport = :$port" 2>/dev/null | grep -o 'pid=[0-9]*' | tr '\n' ' ')"
for process in /proc/[0-9]*; do
  # `start` comes first: what only starts a server (sudo, tini) has other words before it.
  [ "$(sed -z -n 2p "$process/cmdline" 2>/dev/null | tr -d '\0')" = start ] || continue
  grep -qz '^--addresses' "$process/cmdline" || continue
  pid=${process#/proc/}
  parent=$(sed -n 's/^PPid:[[:space:]]*//p' "$process/status")
  is_listening=no
  case $listening in *" pid=$pid "*) is_listening=yes ;; esac
  uid=$(sed -n 's/^Uid:[[:space:]]*\([0-9]*\).*/\1/p' "$process/status")
  user=$(getent passwd "$uid" | cut -d: -f1)
  say process "$pid" "${user:-$uid}" "$is_listening" "$parent"
  say arguments "$pid" "$(one_word <"$process/cmdline")"
  say parent "$pid" "$(one_word <"/proc/$parent/cmdline")"
  say started_in "$pid" "$(readlink "$process/cwd" | one_word)"
  [ ! -f "$process/fd/1" ] || say output "$pid" "$(readlink "$process/fd/1" | one_word)"

  # The innermost control group says whose it is.
  group=$(sed -n 's#^[0-9]*:\(name=systemd\)\{0,1\}:.*/##p' "$process/cgroup" | head -n 1)
  id=$(say "$group" | sed -n 's/^\(docker-\)\{0,1\}\([0-9a-f]\{64\}\)\(\.scope\)\{0,1\}$/\2/p')
  path=$(sed -z -n '$p' "$process/cmdline" | tr -d '\0')
  if [ -n "$id" ]; then
    say container "$pid" "$(docker inspect --type=container --format \
      '{{.Id}} {{.Name}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.AutoRemove}}' "$id" 2>/dev/null)"
    path=$(outside "$id" "$path")
  else
    say group "$pid" "$group" \
      "$(systemctl show "$group" --property=MainPID --value 2>/dev/null | head -n 1)" \
      "$(systemctl show "$group" --property=UnitFileState --value 2>/dev/null | head -n 1)"
    case $path in /*) ;; *) path=$(readlink "$process/cwd")/$path ;; esac
  fi
  if path=$(realpath -e -- "$path" 2>/dev/null); then
    for fd in "$process"/fd/*; do
      [ ! "$fd" -ef "$path" ] || { describe_file "$pid" "$path"; break; }
    done
  fi
  say log "$pid" "$(logged "$process" "$id" | gzip | one_word)"
done

# What would start a server again, at boot or by the clock; our own units carry a mark.
grep -ls '^ExecStart=.*tigerbeetle.*[[:space:]]start\([[:space:]]\|$\)' \
  /etc/systemd/system/*.service /usr/local/lib/systemd/system/*.service \
  /usr/lib/systemd/system/*.service | xargs -r grep -L WALLET_SERVICE_SETTINGS |
  while read -r unit; do
    name=$(basename "$unit")
    say starter "$name" "$(systemctl is-enabled "$name" 2>/dev/null)"
  done
grep -rlsE '^[^#]*tigerbeetle[^#]* start ' /etc/crontab /etc/cron.d /var/spool/cron /etc/rc.local |
  while read -r file; do say starter "$file" cron; done

ss -Htn state established "sport = :$port" 2>/dev/null | while read -r _ _ _ peer; do
  peer=${peer%:*} peer=${peer#\[} peer=${peer%\]}
  say client "${peer#::ffff:}"
done | sort -u
