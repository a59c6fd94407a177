"""Who else uses this machine while something is measured on it: all but the load's own programs.

What is not seen as a process counts too: programs that have ended meanwhile, those of other
containers, and time that the hypervisor gave to another machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

#: They do nothing of their own: what they use, the load has made them use.
CARRIERS = ("docker-proxy", "ssh", "sshd")
#: Time that nobody used, or the kernel for what comes in; guests are counted as users already.
_NOBODY = ("idle", "iowait", "irq", "softirq", "guest", "guest_nice")
_KERNEL = 2  # kthreadd: the parent of all kernel threads
_NAMED = 3


@dataclass(frozen=True)
class Process:
    """One process and the CPU seconds so far of it and of those it has started that ended."""

    name: str
    parent: int
    cpu_s: float


@dataclass(frozen=True)
class Usage:
    """The machine at one instant: CPU seconds of all cores by kind, and its processes by pid."""

    seconds: Mapping[str, float]
    processes: Mapping[int, Process]


@dataclass(frozen=True)
class Others:
    """What others used meanwhile, in per cent of all cores, and who they were: the most first."""

    percent: float
    who: tuple[str, ...] = ()


def read() -> Usage:
    """The machine now. A few milliseconds for each hundred processes."""
    processes = {}
    for process in psutil.process_iter(["pid", "ppid", "name", "cpu_times"]):
        told = process.info
        if told["cpu_times"] is not None:
            processes[told["pid"]] = Process(
                told["name"] or "?", told["ppid"] or 0, sum(told["cpu_times"][:4])
            )
    return Usage(psutil.cpu_times()._asdict(), processes)


def between(before: Usage, after: Usage, ours: Iterable[int]) -> Others:
    """What was used by others than the processes ``ours`` and all that these started. Pure."""
    total = sum(_spent(before, after, kind) for kind in after.seconds if "guest" not in kind)
    if total <= 0:
        return Others(0.0)
    mine = _with_children(after, ours)
    used_mine, used = 0.0, defaultdict[str, float](float)
    for pid, cpu_s in _by_process(before, after).items():
        process = after.processes[pid]
        is_kernel = _KERNEL in (pid, process.parent)
        if pid in mine or is_kernel or process.name in CARRIERS:
            used_mine += cpu_s
        else:
            used[process.name] += cpu_s
    used["the hypervisor"] = _spent(before, after, "steal")
    busy = sum(_spent(before, after, kind) for kind in after.seconds if kind not in _NOBODY)
    most = sorted(used.items(), key=lambda one: -one[1])[:_NAMED]
    named = [(name, 100 * cpu_s / total) for name, cpu_s in most]
    return Others(
        percent=max(0.0, 100 * (busy - used_mine) / total),
        who=tuple(f"{name} {percent:.0f} %" for name, percent in named if percent >= 1),
    )


def _by_process(before: Usage, after: Usage) -> dict[int, float]:
    """CPU seconds of each process that is there now, and of those it has started that ended."""
    # A pid whose time has become less is another process's by now.
    same = {
        pid
        for pid, one in before.processes.items()
        if pid in after.processes and one.cpu_s <= after.processes[pid].cpu_s
    }
    spent = {pid: one.cpu_s for pid, one in after.processes.items()}
    for pid, one in before.processes.items():
        heir = pid
        while heir not in same and heir in before.processes:
            heir = before.processes[heir].parent  # whoever has waited for it has its time now
        if heir in same:
            spent[heir] -= one.cpu_s
    return {pid: max(0.0, cpu_s) for pid, cpu_s in spent.items()}


def _spent(before: Usage, after: Usage, kind: str) -> float:
    return max(0.0, after.seconds.get(kind, 0.0) - before.seconds.get(kind, 0.0))


def _with_children(usage: Usage, roots: Iterable[int]) -> set[int]:
    mine, found = set[int](), set(roots)
    while found:
        mine |= found
        found = {pid for pid, one in usage.processes.items() if one.parent in found} - mine
    return mine
