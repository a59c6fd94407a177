#!/bin/sh
# Freeze one replica, clone its data file, thaw it: each step when a line on stdin asks for it.
# Runs beside the server, as the data file's owner, with these set: data and clone (paths), limit
# (seconds), files (how many data files there are on its disk). Answers by lines that begin with
# "freeze: ".
#
# Whatever ends this script thaws the replica and removes the clone, and the end of stdin ends it.
# If it is asked for nothing more, since the asker or the way to it is gone, a timer in a session of
# its own does both when the limit is over. A clone is good if the replica stood still from before
# the first replica's clone until after the last one's: it does when asked to thaw.
# shellcheck disable=SC2086,SC2013 # lists of numbers, and of paths below /proc
set -u
umask 077
: "${data:?}" "${clone:?}" "${limit:?}" "${files:?}"
trap '' PIPE # the asker may be gone: that is seen on stdin

servers='' guard='' probe=$data.clone-probe-$$

say() { echo "freeze: $*"; }

give_up() {
  say "$@"
  exit 1
}

thaw() {
  kill -CONT $servers
  kill -KILL -"$guard"
  guard=''
} 2>/dev/null

end() {
  trap '' HUP INT TERM
  [ -z "$guard" ] || thaw
  rm -f "$clone" "$probe" "$probe-clone"
}

# Every thread of it: one that is still in a write has not stopped.
is_frozen() {
  for pid in $servers; do
    for stat in /proc/"$pid"/task/*/stat; do
      read -r line <"$stat" || return 1
      case ${line##*) } in T*) ;; *) return 1 ;; esac
    done
  done
} 2>/dev/null

# All that was started on the data file; not a container's first process, which cannot be stopped.
find_servers() {
  for cmdline in $(grep -lsF -e "$data" /proc/[0-9]*/cmdline); do
    pid=${cmdline#/proc/} pid=${pid%/cmdline}
    case "
$(tr '\0' '\n' <"$cmdline")
" in
      *"
start
"*"
$data
"*) [ "$pid" = 1 ] || servers="$servers $pid" ;;
    esac
  done 2>/dev/null
}

for tool in grep tr cp stat df tail cut setsid sleep; do
  command -v "$tool" >/dev/null || give_up "cannot: there is no command $tool"
done
find_servers
[ -n "$servers" ] || give_up "cannot: no process serves $data"
kill -0 $servers 2>/dev/null || give_up "cannot: its process is another user's"
! is_frozen || give_up "cannot: somebody has stopped its process ($servers)"

trap end EXIT
trap 'exit 1' HUP INT
trap 'give_up "broken: it went on by itself, since the limit was over"' TERM
why=$({ echo probe >"$probe" && cp --reflink=always "$probe" "$probe-clone"; } 2>&1) ||
  give_up "cannot: on its file system, $(stat -f -c %T "${data%/*}"), no file can be cloned (${why##*: })"
rm -f "$probe" "$probe-clone"
# What is written while there is a clone takes new blocks: a server that finds none dies.
needed=$(($(stat -c %b "$data") * files / 2)) # KiB
free=$(df -Pk "${data%/*}" | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)
[ "$needed" -le "$free" ] ||
  give_up "cannot: beside it are $((free / 1024)) MiB free, and while there are clones, writes may take $((needed / 1024)) MiB"

say ready
while read -r word; do
  case $word in
    arm)
      rm -f "$data".clone-* # of a backup that was killed
      # shellcheck disable=SC2016 # for the timer's own shell
      # It ends this script only while that is its parent: numbers are used again.
      setsid sh -c '
        trap "" HUP INT TERM
        sleep "$1"
        kill -CONT $2
        read -r line </proc/$$/stat
        case ${line##*) } in "S $4 "* | "R $4 "*) kill -TERM "$4"; sleep 1 ;; esac
        rm -f "$3"' guard "$limit" "$servers" "$clone" $$ </dev/null >/dev/null 2>&1 &
      guard=$!
      say armed
      ;;
    freeze)
      kill -STOP $servers || give_up "broken: its process has ended"
      until is_frozen; do sleep 0.01; done # at most until the timer ends this
      say frozen
      ;;
    clone)
      is_frozen || give_up "broken: it was thawed before its file was cloned"
      why=$(cp --reflink=always "$data" "$clone" 2>&1) || give_up "broken: ${why##*: }"
      is_frozen || give_up "broken: it was thawed while its file was cloned"
      say cloned
      ;;
    thaw)
      is_frozen || give_up "broken: it was thawed before every file was cloned"
      thaw
      [ -e "$clone" ] || give_up "broken: its clone is gone"
      say thawed
      ;;
  esac
done
