#!/bin/sh
# Print what a host is like for the programs of the monitoring, one `key value` a line, for
# monitoring/host.py. Changes nothing.
set -u

say() { printf '%s\n' "$*"; }

say systemd "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
say python "$(python3 --version 2>/dev/null | sed 's/^Python //')"
for address in $(ip -o -4 addr show 2>/dev/null | sed 's/.* inet \([0-9.]*\).*/\1/'); do
  say address "$address"
done
for program in apt-get prometheus prometheus-blackbox-exporter prometheus-node-exporter; do
  command -v "$program" >/dev/null && say program "$program"
done
ss -Hltun | while read -r protocol _ _ _ address _; do say listening "$protocol" "$address"; done
for unit in collector prometheus blackbox node-exporter; do
  pid=$(systemctl show --property=MainPID --value "tigerbeetle-$unit.service")
  [ "$pid" -gt 0 ] || continue
  say running "$unit" \
    "$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^WALLET_SERVICE_SETTINGS=//p')"
done
say cluster "$(sed -n 's/^# Cluster: //p' /etc/tigerbeetle/monitoring/prometheus.yml 2>/dev/null)"
[ -d /etc/grafana ] && say grafana yes
exit 0
