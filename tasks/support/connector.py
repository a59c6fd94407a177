"""pyinfra's hosts over SSH, through this machine's own `ssh` and the connection that all share.

pyinfra's own client would log in once more for each program, reads only a part of ssh_config, asks
for the passphrase of a key that an agent holds, and needs SFTP. See ``cluster.runtimes.ssh``.
"""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Unpack

from gevent.subprocess import PIPE, Popen
from pyinfra import logger
from pyinfra.api.arguments import ConnectorArguments
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host as PyinfraHost
from pyinfra.api.output import echo
from pyinfra.api.util import get_file_io
from pyinfra.connectors import ssh as pyinfra_ssh
from pyinfra.connectors.util import (
    CommandOutput,
    execute_command_with_sudo_retry,
    extract_control_arguments,
    make_unix_command_for_host,
    read_output_buffers,
    write_stdin,
)

from cluster.config.servers import Host
from cluster.refusal import Refusal
from cluster.runtimes import ssh

_OURS = tuple(field.alias or name for name, field in Host.model_fields.items())
_MARK = f"{ssh.MARK}\n".encode()
_running: set[Any] = set()
#: Takes its place once it is whole: no interruption leaves half a file under its name.
_PUT = """\
there={there}; part="$there.part"; trap 'rm -f "$part"' EXIT
cat >"$part" && [ "$(wc -c <"$part")" -eq {size} ] || exit 1
[ ! -e "$there" ] || cp --attributes-only --preserve=mode,ownership "$there" "$part" || exit 1
mv -f "$part" "$there"
"""


def use() -> None:
    """Have pyinfra take it for every host over SSH."""
    pyinfra_ssh.SSHConnector = OpenSsh  # type: ignore[misc]  # it looks there by that name


def way_to(host: PyinfraHost) -> Host:
    """How a host of pyinfra's is reached."""
    data = {key: host.data.get(key) for key in _OURS}
    given = {key: value for key, value in data.items() if value is not None}
    return Host.model_validate({"ssh_hostname": host.name} | given)


class OpenSsh(pyinfra_ssh.SSHConnector):
    """pyinfra's connector "ssh", with the same data."""

    def connect(self) -> None:
        """Log in, unless somebody has. Raises ConnectError, too where nothing answers any more."""
        try:
            ssh.run(way_to(self.host), "true")
        except Refusal as error:
            raise ConnectError(str(error)) from None

    def disconnect(self) -> None:
        """The connection stays for the next."""

    def run_shell_command(
        self,
        command: StringCommand,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Unpack[ConnectorArguments],
    ) -> tuple[bool, CommandOutput]:
        """Whether it succeeds, and what it says. Raises SshError, and TimeoutError."""
        arguments.pop("_get_pty", None)
        timeout = arguments.pop("_timeout", None)
        given = arguments.pop("_stdin", None)
        good = arguments.pop("_success_exit_codes", None) or [0]

        def execute() -> tuple[int, CommandOutput]:
            line = make_unix_command_for_host(self.state, self.host, command, **arguments)
            if print_input:
                echo(f"{self.host.print_prefix}>>> {line}", err=True)
            with self._started(line) as process:
                if given:
                    write_stdin(given, process.stdin)  # type: ignore[no-untyped-call]
                process.stdin.close()
                said = _Said(process.stdout)
                output = read_output_buffers(
                    said,
                    (line.decode(errors="replace") for line in process.stderr),
                    timeout=timeout,
                    print_output=print_output,
                    print_prefix=self.host.print_prefix,
                )
                return self._ended(process, said.is_marked, output.stderr), output

        code, output = execute_command_with_sudo_retry(self.host, arguments, execute)
        return code in good, output

    def put_file(
        self,
        filename_or_io: Any,
        remote_filename: str,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Unpack[ConnectorArguments],
    ) -> bool:
        """Send a file to where it belongs, whole or not at all. Raises SshError."""
        with get_file_io(filename_or_io) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            put = StringCommand(_PUT.format(there=shlex.quote(remote_filename), size=size))
            with self._started(self._line(put, arguments)) as process:
                with suppress(BrokenPipeError):  # it says below why it did not read on
                    shutil.copyfileobj(file, process.stdin)
                    process.stdin.close()
                is_marked = _is_marked(process.stdout)
                return self._told(process, is_marked, f"uploaded: {remote_filename}", print_output)

    def get_file(
        self,
        remote_filename: str,
        filename_or_io: Any,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Unpack[ConnectorArguments],
    ) -> bool:
        """Bring a file here. Raises SshError."""
        line = self._line(StringCommand("cat", QuoteString(remote_filename)), arguments)
        with self._started(line) as process, get_file_io(filename_or_io, "wb") as file:
            process.stdin.close()
            is_marked = _is_marked(process.stdout)
            shutil.copyfileobj(process.stdout, file)
            return self._told(process, is_marked, f"downloaded: {remote_filename}", print_output)

    def _line(self, command: StringCommand, arguments: ConnectorArguments) -> StringCommand:
        extract_control_arguments(arguments)
        return make_unix_command_for_host(self.state, self.host, command, **arguments)

    @contextmanager
    def _started(self, line: StringCommand) -> Iterator[Any]:
        """A shell line there: out of a terminal's Ctrl-C, and ended when it is left."""
        logger.debug("Running command on %s: %s", self.host.name, line)
        marked = f"echo {shlex.quote(ssh.MARK)}; {line.get_raw_value()}"
        arguments = [*ssh.shared(way_to(self.host)), marked]
        process = Popen(arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True)
        _running.add(process)
        try:
            yield process
        finally:
            _end(process)

    def _ended(self, process: Any, is_marked: bool, said: str) -> int:
        """Its exit code. Raises SshError for one that SSH has kept from running to its end."""
        code: int = process.wait()
        if code == ssh.FAILED:
            raise ssh.failure(way_to(self.host), said)
        if not is_marked:
            raise ssh.unspoken(way_to(self.host), said)
        return code

    def _told(self, process: Any, is_marked: bool, done: str, print_output: bool) -> bool:
        said = process.stderr.read().decode(errors="replace")
        if self._ended(process, is_marked, said):
            logger.error(f"{self.host.print_prefix}{said.strip()}")
            return False
        if print_output:
            echo(f"{self.host.print_prefix}file {done}", err=True)
        return True


class _Said:
    """The lines of a command, without what a login has printed before."""

    def __init__(self, printed: Iterable[bytes]) -> None:
        self._printed = printed
        self.is_marked = False

    def __iter__(self) -> Iterator[str]:
        for line in self._printed:
            if self.is_marked:
                yield line.decode(errors="replace")
            self.is_marked = self.is_marked or line.endswith(_MARK)


def _is_marked(printed: Any) -> bool:
    """Whether the command begins here, past what a login has printed."""
    return any(line.endswith(_MARK) for line in iter(printed.readline, b""))


def _end(process: Any) -> None:
    _running.discard(process)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)  # it leads a session of its own


@atexit.register
def _end_all() -> None:
    """What an interruption has left behind."""
    for process in [*_running]:
        _end(process)
