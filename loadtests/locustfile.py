"""The file for ``locust -f``: the users, our options, and a run from test_start to test_stop.

The same hooks serve one process, ``--processes``, and master and workers on several machines: the
options carry a run's identity to the workers, and their figures come back as messages.
"""

from __future__ import annotations

from locust import events
from locust.argument_parser import default_args_dict, get_parser
from locust.runners import STATE_RUNNING, STATE_SPAWNING, LocalRunner, MasterRunner, WorkerRunner

import argparse
import logging
import os
import platform
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
from flask import jsonify, request
from gevent.event import Event

_ROOT = str(Path(__file__).resolve().parent.parent)
if _ROOT not in sys.path:  # locust puts this file's own directory first, not the repository
    sys.path.insert(0, _ROOT)

from cluster.refusal import Refusal, refusal_of  # noqa: E402
from loadtests import form, options  # noqa: E402
from loadtests.client import preflight  # noqa: E402
from loadtests.client.bridge import BridgeError, Unanswered  # noqa: E402
from loadtests.client.ledger import CLIENTS_PER_LEDGER, Ledger  # noqa: E402
from loadtests.report import report  # noqa: E402
from loadtests.run import locust_stats, runs, target  # noqa: E402
from loadtests.run.conductor import WORKER_STOP_TIMEOUT_S, Conductor  # noqa: E402
from loadtests.run.exit_codes import EXIT_USAGE  # noqa: E402
from loadtests.run.meter import Here  # noqa: E402
from loadtests.run.result import Settings  # noqa: E402
from loadtests.traffic import mix, population, shape  # noqa: E402
from loadtests.wallet.session import Plan, Session  # noqa: E402
from loadtests.wallet.users import (  # noqa: E402
    ReaderUser,
    SettlementUser,
    WalletTasks,
    WalletUser,
    give_up,
)

__all__ = ["ReaderUser", "SettlementUser", "WalletUser"]

logger = logging.getLogger("loadtests")

#: Set for a worker that `make load` has started on a load host: its name.
LOAD_HOST = "LOADTESTS_HOST"
#: Time for users to finish their action before they are cut off; locust's own default is none.
STOP_TIMEOUT_S = 6.0
#: Opening 4,000 accounts takes a second; it took 20 s on a machine with six times its work to do.
OPENING_TIMEOUT_S = 120.0

events.init_command_line_parser.add_listener(options.add)


def refuse_too_many_processes(arguments: list[str]) -> None:
    """Before locust forks them: each would wait for a connection that the cluster never serves."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--processes", type=int, default=os.environ.get("LOCUST_PROCESSES", 0))
    processes = parser.parse_known_args(arguments)[0].processes
    try:
        workers = (os.cpu_count() or 1) if processes < 0 else processes
        preflight.check_sessions(workers, clients_per_worker=CLIENTS_PER_LEDGER)
    except Refusal as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)


refuse_too_many_processes(sys.argv[1:])


@events.init.add_listener
def prepare(environment: Any, web_ui: Any = None, **_kwargs: Any) -> None:
    """Before anything is started: settle the options, and make sure the cluster answers."""
    settings, runner = environment.parsed_options, environment.runner
    gevent.signal_handler(signal.SIGINT, _interrupted)
    locust_stats.install()
    environment.session = environment.conductor = environment.population = None
    environment.opened = Event()
    environment.opened.set()
    environment.handed_in = Event()  # what a worker's session has found out, to its master
    environment.handed_in.set()
    environment.stop_timeout = environment.stop_timeout or STOP_TIMEOUT_S
    settings.spawn_rate = settings.spawn_rate or settings.num_users
    if isinstance(runner, WorkerRunner):  # the master says what its users are
        environment.events.quitting.add_listener(_hand_in)
        runner.register_message("load_stop", lambda **_: runner.stop(), concurrent=True)
        runner.register_message("load_rate", _set_rate)
        return
    environment.run_time, environment.is_timed = settings.run_time, True
    runner.register_message("load_second", _take_second)
    runner.register_message("load_here", _take_worker)
    runner.register_message("load_finished", _take_summary)
    if isinstance(runner, LocalRunner):
        runner.register_message("load_rate", _set_rate)
    try:
        options.settle(settings)
        runs.try_to_write()
        preflight.check_sessions(_workers(environment), clients_per_worker=CLIENTS_PER_LEDGER)
        environment.target = target.resolve(
            cluster_id=settings.cluster_id, addresses=settings.addresses, engine=settings.engine
        )
        settings.reach = settings.reach or target.way(environment.target)
        if environment.target.release != target.UNKNOWN_RELEASE:
            preflight.check_release(environment.target.release)
        # Connect once: a wrong address or id is reported before users are started.
        with closing(Ledger(int(environment.target.cluster_id), settings.reach)) as ledger:
            ledger.connect(named=environment.target.named)
        _take_traffic(environment, settings)
    except (Refusal, OSError) as error:
        print(f"error: {refusal_of(error)}", file=sys.stderr)
        environment.process_exit_code = EXIT_USAGE
        sys.exit(EXIT_USAGE)
    # Locust's own clock runs while wallets are opened, which takes as long as the machine is busy.
    if settings.headless and not environment.shape_class:
        settings.run_time = None
    if web_ui:
        web_ui.app.before_request(lambda: _refused_form(environment))


def _take_traffic(environment: Any, settings: Any) -> None:
    """What users do, and how their number or rate changes, from the options. Raises Refusal."""
    if not settings.user_classes and not settings.class_picker:
        environment.user_classes = [environment.available_user_classes[settings.user_class]]
    shape.give(environment, settings.arrival_profile)
    _let_go(environment)
    if settings.population:
        environment.population = population.take(
            settings.population, environment.target, settings.reach, _workers(environment)
        )


def _let_go(environment: Any) -> None:
    """Another run may have the wallets of this one's population."""
    taken, environment.population = environment.population, None
    if taken:
        taken.close()


def _refused_form(environment: Any) -> Any:
    """Tell what the form asks for and cannot have, before locust starts it; None: go on."""
    if not request.path.endswith("/swarm"):
        return None
    try:
        locusts, shown = default_args_dict(), get_parser().args_included_in_web_ui
        ours = {name: shown[name] for name in shown.keys() - locusts.keys()}
        settings = form.read(request.form, environment.parsed_options, ours)
        if environment.runner.state not in (STATE_SPAWNING, STATE_RUNNING):
            _take_traffic(environment, settings)
    except (Refusal, OSError) as error:
        return jsonify(success=False, message=str(refusal_of(error)), host=environment.host)
    return None


def _interrupted() -> None:
    """Ctrl-C, between two turns of the hub: in the midst of one it would tear the record."""
    raise KeyboardInterrupt


@events.test_start.add_listener
def start(environment: Any, **_kwargs: Any) -> None:
    """A run begins: on the master its manifest, on each worker its clients and wallets."""
    runner, settings = environment.runner, environment.parsed_options
    if not isinstance(runner, WorkerRunner):
        options.settle(settings)  # the web UI's form has written to them meanwhile
        taken = environment.population
        settings.wallets = taken.wallets if taken else settings.wallets
        conductor = Conductor(
            environment.target, _settings(environment), name=settings.run_id, group=settings.group
        )
        environment.conductor, environment.is_timed = conductor, False
        settings.run_id = ""  # only the first run of a process that serves the web UI
        # Options travel to the workers with the order to spawn.
        settings.run_tag, settings.run_path = conductor.tag, str(conductor.path)
        settings.population_tag = int(taken.tag) if taken else conductor.tag
        if taken:
            taken.note(conductor.path.name)
        settings.target_id = environment.target.cluster_id
        settings.target_addresses, settings.target_host = settings.reach, platform.node()
        settings.target_listed = environment.target.addresses
        conductor.start(progress=settings.progress)
    if isinstance(runner, MasterRunner):
        return
    for user_class in environment.user_classes:
        user_class.think_s = settings.think_s
    WalletTasks.take(mix.parsed(settings.actions))
    environment.opened.clear()
    try:
        environment.session = Session(
            _plan(environment),
            on_second=lambda second: _send_second(environment, second),
            users=lambda: runner.user_count,
        )
    except (BridgeError, Unanswered, OSError) as error:
        give_up(environment, error)
        return
    finally:
        environment.opened.set()
    runner.send_message("load_here", _here(runner.worker_index))
    if isinstance(runner, LocalRunner):
        _start_clock(environment)
    environment.handed_in.clear()
    is_steady = environment.shape_class is None and not settings.arrival_profile
    if environment.session.arrivals and is_steady:
        environment.session.arrivals.rate = settings.rate / _workers(environment)


@events.test_stopping.add_listener
def stopping(environment: Any, **_kwargs: Any) -> None:
    """The measured window ends. The master waits for its workers before locust stops them."""
    environment.opened.wait(OPENING_TIMEOUT_S)  # else nobody would write down what was funded
    if environment.session:
        environment.session.stopping()
    if isinstance(environment.runner, MasterRunner) and environment.conductor:
        workers = _workers(environment)  # those, too, that have quit meanwhile
        environment.runner.send_message("load_stop", {})
        timeout_s = (
            environment.stop_timeout + environment.parsed_options.deadline_s + WORKER_STOP_TIMEOUT_S
        )
        if not environment.conductor.wait_for_workers(workers, timeout_s):
            logger.error("not every worker handed in its figures within %.0f s", timeout_s)


@events.test_stop.add_listener
def stop(environment: Any, **_kwargs: Any) -> None:
    """The users have stopped: close the clients, write down the result."""
    session, environment.session = environment.session, None
    if session:
        environment.runner.send_message("load_finished", session.finish())
        environment.handed_in.set()
    conductor = environment.conductor
    if isinstance(environment.runner, WorkerRunner) or conductor is None:  # the UI ran nothing
        return
    conductor.finish(_workers(environment))
    _let_go(environment)
    report.write(conductor.path)
    logger.info("result: %s", conductor.path)
    if isinstance(environment.runner, MasterRunner) and environment.parsed_options.headless:
        gevent.spawn_later(0, environment.runner.quit)  # also where all workers have gone


def _hand_in(environment: Any, **_kwargs: Any) -> None:
    """By a worker that was interrupted itself: its master forgets whoever says that it quits.

    The terminal's Ctrl-C reaches all processes, and one of them is first.
    """
    environment.runner.stop()
    environment.handed_in.wait(WORKER_STOP_TIMEOUT_S + environment.parsed_options.deadline_s)


def _set_rate(environment: Any, msg: Any, **_kwargs: Any) -> None:
    if environment.session and environment.session.arrivals:
        environment.session.arrivals.rate = float(msg.data["rate"])


def _take_second(environment: Any, msg: Any, **_kwargs: Any) -> None:
    environment.conductor.series.add(msg.data)
    _start_clock(environment)


def _start_clock(environment: Any) -> None:
    """A run takes its time from here on: wallets are open, and users begin to act."""
    if environment.is_timed:
        return
    environment.is_timed = True
    if environment.shape_class:
        environment.shape_class.reset_time()
    elif environment.run_time and environment.parsed_options.headless:
        gevent.spawn_later(environment.run_time, environment.runner.quit)


def _take_worker(environment: Any, msg: Any, **_kwargs: Any) -> None:
    environment.conductor.workers[msg.data["worker"]] = msg.data


def _take_summary(environment: Any, msg: Any, **_kwargs: Any) -> None:
    environment.conductor.finished[msg.data["worker"]] = msg.data


def _send_second(environment: Any, second: Any) -> None:
    locust_stats.hand_over(environment.stats, second)
    environment.runner.send_message("load_second", second)


def _workers(environment: Any) -> int:
    """How many processes send load: the master knows it before they have connected."""
    runner, settings = environment.runner, environment.parsed_options
    if isinstance(runner, LocalRunner):
        return 1
    if isinstance(runner, MasterRunner):
        return max(len(runner.clients.all), int(settings.expect_workers))
    return max(1, int(settings.expect_workers))


def _here(worker: int) -> Here:
    """Where this worker is, as whoever has started it on a load host says, or this machine."""
    offset, rtt = (os.environ.get(f"LOADTESTS_{name}_MS") for name in ("CLOCK_OFFSET", "RTT"))
    return Here(
        worker=worker,
        host=os.environ.get(LOAD_HOST) or platform.node(),
        clock_offset_ms=float(offset) if offset else None,
        rtt_ms=float(rtt) if rtt else None,
    )


def _plan(environment: Any) -> Plan:
    settings, is_on_load_host = environment.parsed_options, LOAD_HOST in os.environ
    # Else its tunnels do not end here.
    is_with_master = settings.target_host == platform.node() and not is_on_load_host
    return Plan(
        run=Path(settings.run_path)
        if Path(settings.run_path).parent.is_dir() and not is_on_load_host
        # A worker on another machine keeps its part under its own runs directory.
        else runs.directory() / Path(settings.run_path).name,
        tag=settings.run_tag,
        worker=environment.runner.worker_index,
        cluster_id=int(settings.target_id),
        addresses=settings.target_addresses if is_with_master else settings.target_listed,
        wallets=settings.wallets,
        skew=settings.skew,
        seed=settings.seed,
        deadline_s=settings.deadline_s,
        batch_max=settings.batch_max,
        open_loop=settings.rate > 0,
        arrival_process=settings.arrivals,
        population=settings.population_tag,
    )


def _settings(environment: Any) -> Settings:
    settings, profile = environment.parsed_options, environment.shape_class
    return Settings(
        users=settings.num_users or 1,
        user_classes=[user_class.__name__ for user_class in environment.user_classes],
        mode="open" if settings.rate else "closed",
        rate=settings.rate or None,
        profile=str(profile) if profile else "steady",
        wallets=settings.wallets,
        skew=settings.skew,
        warmup_s=settings.warmup_s,
        deadline_s=settings.deadline_s,
        seed=settings.seed,
        processes=_workers(environment),
        scenario=settings.scenario,
        actions=mix.parsed(settings.actions),
        population=environment.population.name if environment.population else "",
    )
