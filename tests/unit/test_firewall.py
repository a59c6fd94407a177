"""The rules say who gets in; settings that would shut out too many, or nobody, are refused.

Whether the kernel takes the rules, and what they do, is shown on servers: tests/remote.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import config
from cluster.checks import firewall
from cluster.config.model import Cluster
from cluster.config.servers import Settings
from cluster.refusal import Refusal

HOSTS = ("10.0.0.11", "10.0.0.12", "10.0.0.13")
NETWORK = IPv4Network("10.0.9.0/24")


def cluster(*ips: str, port: int = 3000) -> Cluster:
    """Three servers, each replica on the same port."""
    given = config.load(environ={})
    replicas = tuple(
        replica.model_copy(update={"ip": IPv4Address(ip), "port": port})
        for replica, ip in zip(given.replicas, ips or HOSTS, strict=True)
    )
    return given.model_copy(update={"replicas": replicas})


def elements(rules: str, name: str) -> list[str]:
    """What is in a set of the rules, by reading the text."""
    found = re.search(rf"set {name} \{{.*?\n  \}}", rules, re.DOTALL)
    assert found
    listed = re.search(r"elements = \{ (.*) \}", found[0])
    return listed[1].split(", ") if listed else []


def test_all_replicas_and_the_listed_networks_are_let_in() -> None:
    made = cluster()
    rules = firewall.rules(made, made.replicas[0], [NETWORK, IPv4Network("10.0.7.1/32")])
    assert elements(rules, "replicas") == ["10.0.0.11", "10.0.0.12", "10.0.0.13"]
    assert elements(rules, "clients") == ["10.0.9.0/24", "10.0.7.1/32"]


def test_the_last_word_is_to_drop() -> None:
    made = cluster()
    rules = firewall.rules(made, made.replicas[0], [])
    verdicts = re.findall(r"^    (?!type)[^#\n]*\b(accept|drop)\b", rules, re.M)
    assert verdicts == ["accept", "accept", "accept", "accept", "accept", "drop"]


def test_without_clients_only_replicas_are_let_in() -> None:
    made = cluster()
    rules = firewall.rules(made, made.replicas[0], [])
    assert elements(rules, "clients") == []
    assert len(elements(rules, "replicas")) == 3


def test_only_the_ports_of_this_server_are_guarded() -> None:
    shared = cluster("10.0.0.11", "10.0.0.11", "10.0.0.12")
    own_ports = tuple(r.model_copy(update={"port": 3000 + r.index}) for r in shared.replicas)
    made = shared.model_copy(update={"replicas": own_ports})
    assert "tcp dport != { 3000, 3001 } accept" in firewall.rules(made, made.replicas[1], [NETWORK])
    assert "tcp dport != { 3002 } accept" in firewall.rules(made, made.replicas[2], [NETWORK])


def test_the_old_table_is_deleted_in_the_same_transaction_and_no_other_is_touched() -> None:
    made = cluster()
    rules = firewall.rules(made, made.replicas[0], [NETWORK])
    lines = [line for line in rules.splitlines() if line and not line.startswith("#")]
    assert lines[:3] == [
        "table inet tigerbeetle",
        "delete table inet tigerbeetle",
        "table inet tigerbeetle {",
    ]
    assert "flush" not in rules
    assert set(re.findall(r"^(?:delete )?table inet (\S+)", rules, re.M)) == {"tigerbeetle"}


def watched() -> Cluster:
    return cluster().model_copy(update={"statsd": "10.0.7.5:8125"})


def test_the_monitoring_host_takes_metrics_of_replicas_and_clients_alone() -> None:
    rules = firewall.monitoring_rules(watched(), [NETWORK])
    assert "udp dport != { 8125 } accept" in rules
    assert "meta l4proto != udp accept" in rules
    assert "tcp" not in rules
    assert elements(rules, "replicas") == list(HOSTS)
    assert elements(rules, "clients") == ["10.0.9.0/24"]


def test_replicas_let_the_monitoring_host_probe_them_and_only_where_there_is_one() -> None:
    given = {"env_file": "x", "runtime": "systemd", "clients": ["10.0.9.0/24"]}
    alone = Settings.model_validate(given)
    assert firewall.admitted(watched(), alone) == [NETWORK]
    monitored = Settings.model_validate(given | {"monitoring_host": "m"})
    assert firewall.admitted(watched(), monitored) == [NETWORK, IPv4Network("10.0.7.5/32")]


def test_the_node_exporter_is_read_by_the_monitoring_host_alone() -> None:
    made = watched()
    rules = firewall.rules(made, made.replicas[0], [NETWORK], "10.0.7.5")
    about = [line.strip() for line in rules.splitlines() if "9100" in line]
    assert about == ["tcp dport 9100 ip saddr 10.0.7.5 accept", "tcp dport 9100 iif != lo drop"]
    assert rules.index("9100") < rules.index("tcp dport != { 3000 }")


def test_without_a_node_exporter_its_port_is_somebody_else_s() -> None:
    made = watched()
    assert "9100" not in firewall.rules(made, made.replicas[0], [NETWORK])


def test_the_token_and_the_cluster_id_are_not_in_the_rules() -> None:
    made = cluster().model_copy(update={"token": "secret-token", "id": 2**99 + 1})
    rules = firewall.rules(made, made.replicas[0], [NETWORK])
    assert "secret-token" not in rules
    assert str(2**99 + 1) not in rules


@given(st.lists(st.ip_addresses(v=4), max_size=20), st.integers(1, 65535))
def test_whatever_is_listed_is_let_in_and_nothing_else(ips: list[IPv4Address], port: int) -> None:
    made = cluster(port=port)
    listed = [IPv4Network(ip) for ip in ips]
    rules = firewall.rules(made, made.replicas[0], listed)
    assert [IPv4Network(text) for text in elements(rules, "clients")] == listed
    assert f"tcp dport != {{ {port} }} accept" in rules


def test_sensible_settings_pass() -> None:
    firewall.check(cluster(), [NETWORK], ssh_port=22)


def test_a_replica_on_the_port_of_ssh_is_refused() -> None:
    with pytest.raises(Refusal, match=r"ssh_port: expected another port .*found 2222, .*Fix: "):
        firewall.check(cluster(port=2222), [NETWORK], ssh_port=2222)


def test_to_let_everybody_in_is_refused() -> None:
    with pytest.raises(Refusal, match=r"clients: .*found 0\.0\.0\.0/0, everybody\. Fix: "):
        firewall.check(cluster(), [NETWORK, IPv4Network("0.0.0.0/0")], ssh_port=22)
