"""Where a served model is: `grpc://HOST[:8001][/NAME][?ca=FILE&deadline=S]`; `grpcs` with TLS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from stpl_core.errors import UsageError

EXAMPLE = "triton:grpc://HOST:8001/NAME"
DEADLINE_S = 30.0


@dataclass(frozen=True)
class Address:
    """The parts of the word."""

    host: str
    """`HOST:PORT`."""
    name: str | None = None
    """The models are NAME_step, NAME_forecast and NAME_rollout; None: the bundle's own name."""
    tls: bool = False
    ca: Path | None = None
    """Certificates to trust; None: those of the system."""
    deadline_s: float = DEADLINE_S
    """How long an answer may take, a server's restart included."""


def parse_address(word: str) -> Address:
    """Read what follows `triton:`.

    Raises:
        UsageError: it is no such address; names what is wrong.
    """
    try:
        parts = urlsplit(word)
        port = parts.port or 8001
    except ValueError as error:
        raise _wrong(word, f"an address ({error})") from error
    if parts.scheme not in ("grpc", "grpcs") or not parts.hostname:
        raise _wrong(word, "grpc://HOST:8001, or grpcs:// with TLS")
    if parts.username is not None:
        raise _wrong(f"{parts.scheme}://{parts.hostname}", "no user: Triton knows none")
    name = parts.path.strip("/")
    if "/" in name:
        raise _wrong(word, "one name after the host")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    ca, deadline = options.pop("ca", None), options.pop("deadline", str(DEADLINE_S))
    if options:
        raise _wrong(word, f"ca or deadline in place of {', '.join(sorted(options))}")
    if ca is not None and parts.scheme != "grpcs":
        raise _wrong(word, "grpcs:// with ca")
    if ca is not None and not Path(ca).is_file():
        raise _wrong(word, f"a file of certificates at {ca}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(
        f"{host}:{port}",
        name or None,
        parts.scheme == "grpcs",
        None if ca is None else Path(ca),
        _seconds(word, deadline),
    )


def _seconds(word: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= 3600.0:
        raise _wrong(word, "deadline=S, more than 0 and at most 3600 seconds")
    return seconds


def _wrong(word: str, expected: str) -> UsageError:
    return UsageError(f"--engine triton:{word}", expected=expected, fix=f"--engine {EXAMPLE}")
