"""Replicas that somebody else has started, taken over on their servers: the phase of `make adopt`,
which has seen to it that they fit (`cluster.operate.adopt`).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field

from pyinfra.api import deploy
from pyinfra.api.exceptions import DeployError

from cluster.checks import existence, foreign
from cluster.checks.adoption import Standing
from cluster.checks.foreign import Note
from cluster.config.deployment import Deployment
from cluster.health import health
from cluster.health.health import Unhealthy
from cluster.operate import rollout
from cluster.operate.adopt import health_of, survey
from cluster.operate.rollout import Actions, Member
from cluster.refusal import Failed, last_line
from cluster.runtimes import layout, of
from cluster.tigerbeetle import waiting
from cluster.tigerbeetle.waiting import Expired
from tasks import exporter, firewall, program
from tasks import host as machine
from tasks import replica as replicas
from tasks.support.act import call_once, tell
from tasks.support.here import deployment_here, guarded
from tasks.support.observed import act

#: Within this it ends once it is told, and whoever would start it again has done so.
_STOP_TIMEOUT_S, _QUIET_S = 60, 3
#: A rename that works over no file and across no file systems, as `mv` would.
_RENAME = """\
if [ "$from" != "$to" ] && [ -e "$from" ]; then
  [ "$from" -ef "$to" ] || ln -T -- "$from" "$to"
  [ "$(stat --format=%h "$to")" -lt 2 ] || rm -- "$from"
fi
sync
"""


@deploy("Adopt the replicas")
def adopt() -> None:
    """Have all that a deploy brings but the data files; then one replica after the other."""
    deployment = deployment_here()
    firewall.check()
    exporter.check()
    machine.make_ready()
    program.bring()
    replicas.describe()
    call_once("Take over each replica", _take_over, deployment=deployment)


@dataclass
class Takeover:
    """The replicas taken over in turn; ``act`` runs a shell line for one of them, to its end."""

    deployment: Deployment
    act: Callable[[int, str], None]
    tell: Callable[[str], None] = print
    _left: set[int] = field(default_factory=set)  # others' servers that still run
    _standings: dict[int, Standing] = field(default_factory=dict)
    _logs: health.Logs = field(init=False)

    def run(self) -> None:
        """Finish what was cut off, then all others under the gate. Raises Refusal, or Unhealthy."""
        now, self._logs = survey(self.deployment), health.Logs(self.deployment)
        self._standings = dict(now.standings)
        self._left = {*now.of("foreign")}
        for index in now.of("stopped", "moved"):
            self.tell(f"adopt: replica {index}, which was cut off")
            self._step(index)
            self._settle(index)
        actions = Actions(
            look=self._members,
            commits=lambda: health.probe(self.deployment),
            step=self._step,
            settle=self._settle,
            tell=self.tell,
        )
        rollout.roll("adopt", sorted(self._left), actions)
        for index in now.standings:
            self.act(index, f"rm -f {_q(foreign.note_path(index))}")

    def _members(self) -> list[Member]:
        return list(map(Member.of, health_of(self.deployment, self._left, self._logs)))

    def _step(self, index: int) -> None:
        self._left.discard(index)
        try:
            self.act(index, take_over(self.deployment, self._standings[index]))
        except DeployError as error:
            self._put_back(index)
            raise Unhealthy(
                f"adopt: expected to take replica {index} over, found: {last_line(str(error))}. "
                "Fix: mend what it names, then repeat; it was put back as it was"
            ) from None

    def _settle(self, index: int) -> list[Member]:
        """It is normal, then all are, and commit: the members before that. Raises Unhealthy.

        If it is not, its file goes back to where it was; if another is not, that would help nobody.
        """
        try:
            self._await([index])
        except Failed as failed:
            tail = "".join(f"\n    {line}" for line in of(self.deployment).log_tail(index))
            self._put_back(index)
            raise Unhealthy(f"{failed}{tail}") from None
        try:
            settled = self._await([r.index for r in self.deployment.cluster.replicas])
        except Expired as expired:
            raise Unhealthy(str(expired)) from None
        canaries = (health.probe(self.deployment) for _ in range(health.PROBES))
        if not any(canary.commits for canary in canaries):
            raise Unhealthy("the cluster does not commit")
        return settled

    def _await(self, indexes: list[int]) -> list[Member]:
        """Until these are normal: they, as seen then.

        Raises Unhealthy at once where one is given up, and Expired.
        """
        runtime = of(self.deployment)
        members: list[Member] = []

        def observe() -> tuple[bool, str]:
            nonlocal members
            states = runtime.states() or {}
            for index in set(indexes) & states.keys() - self._left:
                if states[index].state in runtime.GIVEN_UP:
                    raise Unhealthy(f"replica {index} {states[index].state.lower()}")
            members = [m for m in self._members() if m.index in indexes]
            return all(m.is_normal for m in members), ", ".join(m.said for m in members)

        waiting.wait_until(
            observe,
            what=f"replica {', '.join(map(str, indexes))} to be normal",
            timeout_s=health.START_TIMEOUT_S,
            on_progress=lambda seen: self.tell(f"  {seen}"),
        )
        return members

    def _put_back(self, index: int) -> None:
        standing = self._standings[index]
        note = Note.of(standing.process) if standing.process else standing.note
        if note is not None:
            self.tell(f"adopt: putting replica {index}'s data file back to {note.path}")
            self.act(index, put_back(self.deployment, index, note))


def _take_over(deployment: Deployment) -> None:
    with guarded():
        Takeover(deployment, act, tell).run()
        existence.note(deployment)


def take_over(deployment: Deployment, standing: Standing) -> str:
    """The shell line that makes one replica ours, whatever of it was done before. Pure."""
    index, process, note = standing.index, standing.process, standing.note
    marker = _q(foreign.note_path(index))
    lines = ["set -eu"]
    if process:
        note = Note.of(process)
        lines += [
            f"(umask 077; printf %s {_q(str(note))} >{marker}.new); mv {marker}.new {marker}; sync",
            process.stop,
        ]
    lines.append(_places(deployment, index, note))
    if note:
        lines += [
            _until_free("$from" if process or standing.state == "stopped" else "$to"),
            _RENAME,
        ]
    lines += [
        'chown --reference="${to%/*}" "$to"; chmod 600 "$to"',
        f"set +eu; {of(deployment).start(index)}",
    ]
    return "\n".join(lines)


def put_back(deployment: Deployment, index: int, note: Note) -> str:
    """The shell line that makes it as it was: its file, its owner, and who serves it. Pure."""
    return "\n".join(
        [
            "set -eu",
            *of(deployment).stop_all([index]),
            _places(deployment, index, note),
            "old=$from from=$to to=$old",
            _RENAME,
            f'chown {note.owner} "$to"; chmod {note.mode} "$to"',
            # It may never have ended: a second one would only fail.
            f'if flock --nonblock "$to" true; then {note.again}; fi',
            f"rm -f {_q(foreign.note_path(index))}",
        ]
    )


def _places(deployment: Deployment, index: int, note: Note | None) -> str:
    own = _q(layout.data_path(deployment, index))
    return f"to=$(realpath -m -- {own}) from={_q(note.path) if note else own}"


def _until_free(file: str) -> str:
    """Nobody serves it, and nobody begins to."""
    return f"""\
left={_STOP_TIMEOUT_S * 5} quiet={_QUIET_S * 5}
while [ -e "{file}" ] && [ "$quiet" -gt 0 ]; do
  if flock --nonblock "{file}" true; then quiet=$((quiet - 1)); else quiet={_QUIET_S * 5}; fi
  left=$((left - 1))
  [ "$left" -gt 0 ] || {{ echo "{file}: still served, or served again" >&2; exit 1; }}
  sleep 0.2
done"""


def _q(path: str) -> str:
    return shlex.quote(path)
