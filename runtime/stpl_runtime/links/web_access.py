"""How a web server is asked: as whom, whose certificates are believed, where it may send us on.

The options are the same for all that use HTTP, sources and sinks:

    token_env=NAME, token_file=FILE    a bearer token; on a command line everybody could read it
    password_env=NAME                  the password of the user in the URL
    ca=FILE                            the certificate authority to trust
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stpl_core.errors import UsageError
from stpl_core.readers.libraries import reads_with
from stpl_runtime.links.reconnect import without_credentials
from stpl_runtime.links.secrets import secret
from stpl_runtime.links.web import Redirects, no_cookies
from stpl_runtime.options import Options

if TYPE_CHECKING:
    import httpx

    from stpl_runtime.source import SourceSpec

Opened = TypeVar("Opened")

TOKEN_OPTIONS = ("token_env", "token_file", "ca")
ACCESS_OPTIONS = (*TOKEN_OPTIONS, "password_env", "timeout")
_LONGEST_TOKEN = 65536


@dataclass(frozen=True)
class WebAccess:
    """What is needed to ask one server."""

    url: str
    """Without credentials."""
    timeout_s: float
    user: str = ""
    password: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of each request to this server; may hold a token."""
    verify: ssl.SSLContext | bool = True

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return without_credentials(self.url)

    def client(self, **more: Any) -> httpx.Client:
        """For this server. What it sends us on to gets no credentials, and lies outside."""
        import httpx

        from stpl_runtime.links.web_login import Login

        known = self.user or self.password
        login = Login(self.user, self.password).for_client() if known else None
        return httpx.Client(**self._shared(), **more, auth=login, headers={**_OURS, **self.headers})

    def stranger(self, **more: Any) -> httpx.Client:
        """For other servers that this one names: without any credentials."""
        import httpx

        return httpx.Client(**self._shared(), **more, headers=_OURS)

    def is_own(self, url: str) -> bool:
        """Whether a URL lies on the server that the user gave, by the same scheme and port."""
        import httpx

        try:
            one, other = httpx.URL(self.url), httpx.URL(url)
        except httpx.InvalidURL:
            return False
        return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)

    def _shared(self) -> dict[str, Any]:
        return {
            "timeout": self.timeout_s,
            "follow_redirects": True,
            "verify": self.verify,
            "cookies": no_cookies(),
            "event_hooks": {"request": [Redirects(self.url)]},
        }


_OURS = {"Accept-Encoding": "identity", "User-Agent": "stpl-deploy"}


def openers(
    word: str,
    make: Callable[[WebAccess, SourceSpec], Opened],
    names: Sequence[str],
    timeout_s: float,
) -> tuple[Callable[[str, SourceSpec], Opened], Callable[[str, SourceSpec], Opened]]:
    """What opens `WORD+http:REST` and `WORD+https:REST`.

    Args:
        word: of the source.
        make: makes it of its access and the frames that are expected.
        names: of its options, with those of `ACCESS_OPTIONS`.
        timeout_s: see `web_access`.
    """

    def opened(scheme: str, rest: str, spec: SourceSpec) -> Opened:
        name = without_credentials(f"{word}+{scheme}:{rest}")
        return make(web_access(scheme, rest, Options(name, spec.options, names), timeout_s), spec)

    return partial(opened, "http"), partial(opened, "https")


def web_access(scheme: str, rest: str, options: Options, timeout_s: float) -> WebAccess:
    """How the server of `SCHEME:REST` is asked.

    Args:
        scheme: http or https.
        rest: what follows the colon: `//[USER[:PASSWORD]@]HOST...`.
        options: with those of `ACCESS_OPTIONS`.
        timeout_s: to connect, and between two packets, where the option `timeout` is not given.

    Raises:
        MissingExtraError: httpx is not installed.
        UsageError: no URL, or an option that does not hold.
    """
    with reads_with("http"):
        import httpx
    given = f"{scheme}:{rest}"
    try:
        url = httpx.URL(given)
        host = url.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:  # the latter: no name server takes the host
        raise _wrong(given, str(error)) from error
    if not host:
        raise _wrong(given, "no host")
    authority, slash, path = rest.removeprefix("//").partition("/")
    return WebAccess(
        url=f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}",
        timeout_s=options.number("timeout", timeout_s, least=0.01),
        user=url.username,
        password=environment("password_env", options, "the password") or url.password,
        headers=bearer(options),
        verify=trusted(options.text("ca")),
    )


def bearer(options: Options) -> dict[str, str]:
    """The header with the token of the options `token_env` or `token_file`; empty without.

    Raises:
        UsageError: no such variable or file, both, or what no header can carry.
    """
    path = options.text("token_file")
    token, whence = environment("token_env", options, "the token").strip(), "token_env"
    if path:
        if token:
            raise UsageError(
                "token_env and token_file", expected="one of them", fix="leave one out"
            )
        token, whence = _token_of(path), f"token_file={path}"
    if not token:
        return {}
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UsageError(
            f"what {whence} leads to is no token",
            expected="one word of ASCII characters",
            fix="look at what it holds",
        )
    return {"Authorization": f"Bearer {token}"}


def environment(option: str, options: Options, what: str) -> str:
    """What the environment variable holds that an option names; empty where it is not given.

    Or the file that the variable NAME_FILE names: see `stpl_runtime.links.secrets`.

    Raises:
        UsageError: there is none, or nothing is in it.
    """
    variable = options.text(option)
    if variable and not (os.environ.get(variable) or os.environ.get(f"{variable}_FILE")):
        raise UsageError(
            f"{option}={variable}: no such environment variable",
            expected=f"{what} in it",
            fix=f"export {variable}=..., or {variable}_FILE=PATH of a file with it",
        )
    return secret(variable, what) if variable else ""


def trusted(ca: str) -> ssl.SSLContext | bool:
    """Whose certificates are believed: those of the file `ca`, else the usual ones.

    Raises:
        UsageError: it holds none.
    """
    try:
        return ssl.create_default_context(cafile=ca) if ca else True
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"ca={ca} cannot be used: {error.strerror or error}",
            expected="a PEM file of certificates",
            fix="check the path",
        ) from error


def _token_of(path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            token = file.read(_LONGEST_TOKEN).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(
            f"token_file={path} cannot be read: {reason}",
            expected="a file with the token",
            fix="check the path, and that this user may read it",
        ) from error
    if not token:
        raise UsageError(
            f"token_file={path} is empty", expected="the token in it", fix="write it there"
        )
    return token


def _wrong(word: str, reason: str) -> UsageError:
    return UsageError(
        f"{without_credentials(word)} is no URL: {reason}",
        expected="http://HOST/PATH",
        fix="http://HOST/PATH",
    )
