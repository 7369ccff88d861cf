"""What a client of the web is careful about: redirects, cookies, packed bodies."""

from __future__ import annotations

import http.cookiejar
import ipaddress
import socket
import zlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stpl_core.safety.budget import check_bytes, gunzipped

if TYPE_CHECKING:
    import httpx

_PLAIN = ("", "identity")
_GZIP = ("gzip", "x-gzip")


def no_cookies() -> http.cookiejar.CookieJar:
    """A jar that keeps nothing: a cookie that no header can carry would end every later request."""
    return http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))


def decoded_body(content: bytes, encoding: str, most_bytes: int) -> bytes:
    """A body that a server packed once, unpacked within a limit.

    Args:
        content: as it came.
        encoding: the header Content-Encoding, lower case.
        most_bytes: of the body when it is unpacked.

    Raises:
        FrameError: it is larger.
        ValueError: packed otherwise, or several times.
        OSError, EOFError, zlib.error: damaged.
    """
    if encoding in _PLAIN:
        return content
    if encoding in _GZIP:
        return gunzipped(content, "the body", most_bytes)
    if encoding == "deflate":
        unpacker = zlib.decompressobj()
        unpacked = unpacker.decompress(content, most_bytes + 1)
        check_bytes("the body", len(unpacked), most_bytes)
        if not unpacker.eof:
            raise EOFError("it is cut off")
        return unpacked
    raise ValueError("expected gzip, deflate or none")


class NoInnerAddress:
    """Refuses requests to this machine, its neighbours and private networks, by name or number.

    A hook of `httpx` before each request, so that redirects are looked at too. What answers on the
    link itself, such as the credentials that a cloud keeps for a machine, is never asked.
    """

    def __init__(self, near: str) -> None:
        """Prepare.

        Args:
            near: the host that leads to the addresses; where that is an inner one, they may be.
        """
        self._inner_too = bool(near) and any(map(is_inner, addresses_of(near)))

    def __call__(self, request: httpx.Request) -> None:
        """Look at one request.

        Raises:
            httpx.UnsupportedProtocol: it leads where it may not.
        """
        import httpx

        for address in addresses_of(request.url.host):
            if address.is_link_local or (is_inner(address) and not self._inner_too):
                raise httpx.UnsupportedProtocol(
                    f"{request.url.host} lies in this machine's own network ({address})",
                    request=request,
                )


class Redirects(NoInnerAddress):
    """The same for where a server sends us on to; the address that the user gave is theirs."""

    def __init__(self, url: str) -> None:
        """Prepare.

        Args:
            url: what the user gave.
        """
        self._own = urlsplit(url).hostname or ""
        self._looked = False

    def __call__(self, request: httpx.Request) -> None:
        """Look at one request; see `NoInnerAddress`."""
        if request.url.host == self._own:
            return
        if not self._looked:
            super().__init__(self._own)
            self._looked = True
        super().__call__(request)


def is_inner(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it lies in this machine or a private network."""
    inside = _within(address)
    return not inside.is_global or inside.is_multicast or str(inside) in _OF_CLOUDS


_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that a network's translator sends on to the IPv4 address in their end."""
_OF_CLOUDS = ("168.63.129.16",)
"""Public by its number, and answered by the host that a cloud's machine runs on."""


def _within(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 one stands for, else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def addresses_of(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Every address of a host; none where it has none that is known here."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    return [_within(address) for address in addresses]
