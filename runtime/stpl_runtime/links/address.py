"""Where a queue is: `//[USER:PASSWORD@]HOST[:PORT]/REST`, as sources and sinks are given it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote

from stpl_core.errors import UsageError
from stpl_runtime.links.reconnect import without_credentials
from stpl_runtime.links.secrets import secret
from stpl_runtime.options import Options


@dataclass(frozen=True)
class Address:
    """The parts; `#`, `?` and `+` are plain letters of the last one."""

    hosts: str
    """`HOST[:PORT]`, or several with commas."""
    rest: str
    """What follows the first `/` after it."""
    user: str = ""
    password: str = field(default="", repr=False)

    def host_and_port(self, usual: int) -> tuple[str, int]:
        """Of the first one; an IPv6 address stands in brackets.

        Raises:
            UsageError: the port is no number from 1 to 65535.
        """
        first = self.hosts.partition(",")[0]
        host, colon, port = first.rpartition(":")
        if not colon or "]" in port:
            return first.strip("[]"), usual
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise UsageError(
                f"{first} has the port {port}",
                expected="a number from 1 to 65535",
                fix=f"{host}:{usual}",
            )
        return host.strip("[]"), int(port)


def parse_address(scheme: str, rest: str, example: str, options: Options) -> Address:
    """The parts of `SCHEME:REST`.

    The option `password_env` names a variable of the environment that holds the password, or whose
    name with _FILE behind it names a file: what stands on a command line is read by everybody on
    the machine.

    Args:
        scheme: for messages.
        rest: what follows `SCHEME:`.
        example: of a whole word, for messages.
        options: of the source or sink.

    Raises:
        UsageError: no host, or no such variable.
    """
    authority, _, path = rest.removeprefix("//").partition("/")
    userinfo, _, hosts = authority.rpartition("@")
    if not rest.startswith("//") or not hosts.split(":")[0]:
        raise UsageError(
            f"{without_credentials(f'{scheme}:{rest}')} names no host",
            expected=example,
            fix=example,
        )
    user, _, password = userinfo.partition(":")
    variable = options.text("password_env")
    password = secret(variable, "the password") if variable else unquote(password)
    return Address(hosts, path, unquote(user), password)
