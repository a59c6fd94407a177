"""Every command of the cluster's first document, typed in order, against one cluster.

The tests depend on one another, as the steps of a manual do. docs/seed-commands.md has the table:
what is as it was, what differs, and why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from cluster import REPOSITORY, config
from cluster.config import PREFIX
from cluster.tigerbeetle.waiting import wait_until
from tests.docker.onlookers import assert_every_check_passes
from tests.docker.prompt import repl
from tests.docker.sandbox import DockerSandbox, best_engine, docker_sandbox

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.random_order(disabled=True),  # the steps of a manual: each needs those before it
]

HEALTHY_WITHIN_S = 450
NO_REPL = "the emulator has no REPL: .ci/provision-docker base, with a genuine server on PATH"


@pytest.fixture(scope="module")
def seed(takes_memory: None) -> Iterator[DockerSandbox]:
    """The cluster that the manual is about: a genuine one where it can be had."""
    with docker_sandbox(best_engine()) as made:
        yield made


def is_genuine(seed: DockerSandbox) -> bool:
    """The emulator has no REPL, and no gigabyte to allocate."""
    return not config.load(environ=seed.environ).is_emulator_image


def typed(seed: DockerSandbox, line: str, *, fails: bool = False) -> str:
    """Type a shell line as the manual shows it, with this cluster's names; all it prints.

    The names in the manual stand for the sandbox's: tigerbeetle-0, 172.20.0.10, 3000, ...
    """
    for index, name in enumerate(seed.names):
        ip, port = seed.environ[f"{PREFIX}{index}_IP"], str(seed.ports[index])
        line = re.sub(rf"(?<![\w:-])tigerbeetle-{index}(?! format| ?/)\b", name, line)
        line = line.replace(f"172.20.0.1{index}:300{index}", f"{ip}:{port}")
        line = line.replace(f"172.20.0.1{index}", ip).replace(f"300{index}", port)
    line = line.replace("wallet-service_", f"{seed.project}_")
    done = seed.run("bash", "-c", f"{{ {line}\n}} 2>&1")
    assert (done.returncode != 0) == fails, done.stdout[-3000:]
    return done.stdout


def until_seen(follow: str, word: str) -> str:
    """A shell line that follows until a word has come, and ends the command that goes on."""
    # grep ends at the word; `exec` lets the process that is killed be the command itself.
    return f"exec 3< <(exec {follow} 2>&1); pid=$!; grep -m1 {word} <&3; kill $pid"


COMPOSE = "docker compose -f docker-compose.tb.yaml --env-file ./env/tigerbittle.env"


# --- Installation steps -------------------------------------------------------------------------


def test_the_environment_file_shows_the_documented_configuration(seed: DockerSandbox) -> None:
    shown = (REPOSITORY / "env" / "tigerbittle.env").read_text()
    assert "ADDRESSES=172.20.0.10:3000,172.20.0.11:3001,172.20.0.12:3002" in shown
    for index in range(3):
        assert f"{PREFIX}{index}_CONTAINER_NAME=tigerbeetle-{index}" in shown
        assert f"{PREFIX}{index}_PORT=300{index}" in shown
        assert f"{PREFIX}{index}_IP=172.20.0.1{index}" in shown
    assert f"{PREFIX}SUBNET=172.20.0.0/24" in shown


def test_build(seed: DockerSandbox) -> None:
    shown = typed(seed, "make compose-tb-build")
    custom = config.load(environ=seed.environ)
    assert (
        "Custom TigerBeetle image built successfully." in shown
        or f"{custom.custom_image}:{custom.release} is up to date." in shown
    )
    labels = typed(seed, f"docker image inspect {custom.custom_image}:latest")
    assert f'"org.opencontainers.image.version": "{custom.release}-custom"' in labels


def test_init(seed: DockerSandbox) -> None:
    shown = typed(seed, "make compose-tb-init")
    assert shown.index("Formatting TigerBeetle data files...") < shown.index(
        "TigerBeetle data files formatted successfully."
    )
    for index in range(3):
        assert re.search(rf'info\(io\): creating ".*0_{index}\.tigerbeetle', shown)
        assert f"info(main): {index}: formatted: cluster=0 replica_count=3" in shown
        assert f"Container {seed.names[index]}  Created" in shown
    if is_genuine(seed):
        assert "info(io): allocating 1.06298828125GiB..." in shown
    assert "canary committed" in shown


# --- Health monitoring --------------------------------------------------------------------------


def test_status_shows_every_container_healthy(seed: DockerSandbox) -> None:
    def look() -> tuple[bool, str]:
        # Its table is read before its details: a check may succeed in between.
        shown = typed(seed, "make compose-tb-status")
        return shown.count("(healthy)") == shown.count("Status: healthy") == 3, shown

    shown = wait_until(look, what="three healthy containers", timeout_s=HEALTHY_WITHIN_S)
    assert "=== TigerBeetle Cluster Status ===" in shown
    assert re.search(r"^NAMES +STATUS +PORTS$", shown, re.MULTILINE)
    assert "=== Detailed Health Information ===" in shown
    for index, name in enumerate(seed.names):
        port = seed.ports[index]
        up = rf"^{name} +Up .* \(healthy\) +127\.0\.0\.1:{port}->{port}/tcp$"
        assert re.search(up, shown, re.MULTILINE)
        ip = seed.environ[f"{PREFIX}{index}_IP"]
        assert f"--- {name} ---\nStatus: healthy\n" in shown
        assert f"Last Check: Connection to {ip} {port} port [tcp/*] succeeded!" in shown
    assert "cluster: healthy" in shown


def test_inspect_the_health_of_one_container(seed: DockerSandbox) -> None:
    health = json.loads(
        typed(seed, "docker inspect tigerbeetle-0 --format='{{json .State.Health}}'")
    )
    assert health["Status"] == "healthy"
    assert health["FailingStreak"] == 0
    assert health["Log"][-1]["ExitCode"] == 0


# --- Verification -------------------------------------------------------------------------------


def test_docker_ps_shows_three_containers(seed: DockerSandbox) -> None:
    shown = typed(seed, f"docker ps | grep {seed.project}")
    assert len(shown.splitlines()) == 3
    release = config.load().release
    assert shown.count(f"{config.load(environ=seed.environ).custom_image}:{release}") == 3


@pytest.mark.parametrize("index", range(3))
def test_the_log_shows_who_listens_and_which_role(seed: DockerSandbox, index: int) -> None:
    shown = typed(
        seed,
        f'docker logs tigerbeetle-{index} 2>&1 | grep -E "(listening|connected|primary|backup)"',
    )
    assert f"{index}: cluster=0: listening on " in shown
    assert re.search(r"view=(\d+\.\.)?\d+ (primary|backup)", shown)


def test_exactly_one_replica_is_primary_and_not_always_the_first(seed: DockerSandbox) -> None:
    status = json.loads(seed.run("python", "-m", "cluster", "status", "--json").stdout)
    primaries = [r for r in status["replicas"] if r["role"] == "primary"]
    assert len(primaries) == 1
    assert primaries[0]["index"] == primaries[0]["view"] % 3


def test_replicas_ping_one_another(seed: DockerSandbox) -> None:
    for peer in (1, 2):
        shown = typed(seed, f"docker exec tigerbeetle-0 ping -c 2 172.20.0.1{peer}")
        assert "2 received" in shown or "2 packets received" in shown


def test_compose_ps(seed: DockerSandbox) -> None:
    shown = typed(seed, f"{COMPOSE} ps")
    for index, name in enumerate(seed.names):
        assert re.search(rf"^{name} .*tigerbeetle-{index} .*Up ", shown, re.MULTILINE)


# --- Troubleshooting: what is looked at ---------------------------------------------------------


def test_the_security_option_is_in_the_compose_file(seed: DockerSandbox) -> None:
    assert "seccomp=" in typed(seed, 'grep -A 4 "security_opt" docker-compose.tb.yaml')


def test_the_network_can_be_inspected(seed: DockerSandbox) -> None:
    (found,) = json.loads(typed(seed, "docker network inspect wallet-service_tigerbeetle-net"))
    assert {c["Name"] for c in found["Containers"].values()} == set(seed.names)


def test_the_custom_image_is_used(seed: DockerSandbox) -> None:
    custom = config.load(environ=seed.environ)
    shown = typed(seed, "docker inspect tigerbeetle-0 | grep Image")
    assert f'"{custom.custom_image}:{custom.release}"' in shown


def test_the_health_check_is_the_documented_one(seed: DockerSandbox) -> None:
    shown = typed(seed, "docker inspect tigerbeetle-0 --format='{{.Config.Healthcheck.Test}}'")
    ip = seed.environ[f"{PREFIX}0_IP"]
    assert shown.strip() == f"[CMD nc -zv {ip} {seed.ports[0]}]"


def test_every_infra_check_passes_for_whoever_sees_no_process_of_a_container(
    seed: DockerSandbox,
) -> None:
    assert_every_check_passes(seed)


# --- Logs ---------------------------------------------------------------------------------------


def test_make_logs_of_all_and_of_one(seed: DockerSandbox) -> None:
    everything = typed(seed, "make compose-tb-logs")
    assert all(f"{name}  | " in everything for name in seed.names)
    one = typed(seed, "make compose-tb-logs CONTAINER=tigerbeetle-0")
    assert f"{seed.names[0]}  | " in one
    assert seed.names[1] not in one


def test_make_logs_of_a_container_that_is_none_is_refused(seed: DockerSandbox) -> None:
    shown = typed(seed, "make compose-tb-logs CONTAINER=tigerbeetle-9", fails=True)
    assert "CONTAINER: expected one of" in shown


def test_docker_logs_with_tail_and_timestamps(seed: DockerSandbox) -> None:
    assert 0 < len(typed(seed, "docker logs --tail 5 tigerbeetle-0").splitlines()) <= 6
    assert re.search(r"^\d{4}-\d\d-\d\dT", typed(seed, "docker logs -t tigerbeetle-0"), re.M)


def test_docker_logs_follow(seed: DockerSandbox) -> None:
    """`-f` never ends by itself: until its reader has what it waits for."""
    typed(seed, until_seen("docker logs -f tigerbeetle-0", "listening"))
    for name in seed.names:
        typed(seed, until_seen(f"{COMPOSE} logs -f", name))


def test_state_changes_can_be_filtered_from_the_logs(seed: DockerSandbox) -> None:
    assert "transition_to" in typed(seed, f'{COMPOSE} logs | grep -i "transition_to"')


# --- Advanced operations ------------------------------------------------------------------------


def test_the_repl_creates_accounts_and_a_transfer(seed: DockerSandbox) -> None:
    if not is_genuine(seed):
        pytest.skip(NO_REPL)
    shown = repl(
        seed,
        "create_accounts id=1 code=10 ledger=700, id=2 code=10 ledger=700;",
        "create_transfers id=1 debit_account_id=1 credit_account_id=2 amount=100 "
        "ledger=700 code=1;",
        "lookup_accounts id=2;",
        until=r'"credits_posted": "100"',
    )
    assert '"credits_posted": "100"' in shown


def test_the_repl_refuses_a_currency_as_a_code(seed: DockerSandbox) -> None:
    if not is_genuine(seed):
        pytest.skip(NO_REPL)
    shown = repl(
        seed, "create_accounts id=3 code=USD ledger=1 flags=0;", until="(?i)invalid|fail|expected"
    )
    assert re.search("(?i)invalid|fail|expected", shown)


def test_make_repl_without_a_replica_is_refused(sandbox: DockerSandbox) -> None:
    done = sandbox.make("compose-tb-repl")
    assert done.returncode == 2
    assert "Fix: make compose-tb-up" in done.stderr


def test_resource_use_and_a_shell(seed: DockerSandbox) -> None:
    assert seed.names[0] in typed(seed, "docker stats --no-stream tigerbeetle-0")
    assert "0_0.tigerbeetle" in typed(seed, "docker exec tigerbeetle-0 sh -c 'ls /data'")


def test_a_cold_backup_of_all_three_restores_all_three(sandbox: DockerSandbox) -> None:
    """The manual's tar of running replicas is no copy: stop first, and restore all or none.

    With the emulator, whose files are small: compressing three genuine ones takes a minute.
    """
    assert "formatted successfully" in typed(sandbox, "make compose-tb-format")
    assert sandbox.call("compose-tb", "up").returncode == 0
    custom = config.load(environ=sandbox.environ)
    image = f"{custom.custom_image}:{custom.release}"
    backup = sandbox.directory / "backups"
    backup.mkdir()

    def tar(index: int, options: str) -> str:
        return (
            f"docker run --rm --user 0 --entrypoint tar "
            f"-v wallet-service_tigerbeetle-data-{index}:/data -v {backup}:/backup {image} "
            f"{options} /backup/replica-{index}.tar.gz -C /data ."
        )

    assert sandbox.call("compose-tb", "down").returncode == 0
    for index in range(3):
        typed(sandbox, tar(index, "-czf"))
    for index in range(3):
        assert sandbox.in_volume(index, "rm /data/*").returncode == 0
    for command in ("up", "format", "init"):  # never an empty ledger in its place
        refused = sandbox.call("compose-tb", command).stderr
        assert "though it has existed: noted in" in refused
        assert "`make restore INVENTORY=inventories/local.py FROM=`" in refused
        assert "`make compose-tb-format BOOTSTRAP=yes`" in refused
    typed(sandbox, tar(0, "-xzf"))
    refused = sandbox.call("compose-tb", "up").stderr
    assert "replica 1, 2: expected a data file" in refused  # one restored alone is refused
    for index in (1, 2):
        typed(sandbox, tar(index, "-xzf"))
    assert "canary committed" in sandbox.call("compose-tb", "up").stdout


# --- Start, stop, reset -------------------------------------------------------------------------


def test_down_keeps_the_data_and_up_finds_it(seed: DockerSandbox) -> None:
    before = seed.volumes
    typed(seed, "make compose-tb-down")
    assert seed.volumes == before
    assert seed.run("docker", "ps", "-aq", f"--filter=name={seed.project}").stdout == ""
    assert "canary committed" in typed(seed, "make compose-tb-up")


def test_format_refuses_while_the_cluster_runs(seed: DockerSandbox) -> None:
    assert "Fix: make compose-tb-down" in typed(seed, "make compose-tb-format", fails=True)


def test_what_loses_data_asks_first(seed: DockerSandbox) -> None:
    lives = seed.lives()
    for target in ("compose-tb-init", "compose-tb-down-volumes"):
        assert "CONFIRM: expected yes" in typed(seed, f"make {target}", fails=True)
    assert seed.lives() == lives


def test_a_rolling_restart(seed: DockerSandbox) -> None:
    before = seed.lives()
    typed(seed, "make compose-tb-restart")
    after = seed.lives()
    assert [i for i, _ in after] == [i for i, _ in before]
    assert all(now != then for (_, now), (_, then) in zip(after, before, strict=True))


@pytest.mark.long
def test_reset_and_the_manual_steps(seed: DockerSandbox) -> None:
    typed(seed, "CONFIRM=yes make compose-tb-down-volumes")
    assert seed.volumes == []
    assert "make compose-tb-format" in typed(seed, "make compose-tb-up", fails=True)
    for index in range(3):
        shown = typed(
            seed,
            f"{COMPOSE} run --rm tigerbeetle-{index} format --cluster=0 --replica={index} "
            f"--replica-count=3 /data/0_{index}.tigerbeetle",
        )
        assert f"{index}: formatted: cluster=0 replica_count=3" in shown
    again = typed(
        seed,
        f"{COMPOSE} run --rm tigerbeetle-0 format --cluster=0 --replica=0 --replica-count=3 "
        "/data/0_0.tigerbeetle",
        fails=True,
    )
    assert "PathAlreadyExists" in again or "exists" in again
    assert "they are kept" in typed(seed, "make compose-tb-format", fails=True)
    typed(seed, f"{COMPOSE} down")
    typed(seed, f"{COMPOSE} up -d")
    assert "canary committed" in typed(seed, "make compose-tb-up")
