"""The pictures of a `multipart/x-mixed-replace` answer: what cameras call MJPEG over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.message import Message

_LONGEST_HEAD = 16384
"""Of the headers of one part, and of what stands before the first one."""


class NotMultipartError(ValueError):
    """The answer is cut into parts in no way that is known."""


def boundary_of(content_type: str) -> bytes:
    """The word between the parts; cameras write it with or without the dashes before it.

    Raises:
        NotMultipartError: there is none.
    """
    header = Message()
    header["Content-Type"] = content_type
    found = header.get_boundary("").strip().lstrip("-")
    if not found or not found.isascii():
        raise NotMultipartError(f"its Content-Type names no boundary: {content_type[:80]}")
    return b"--" + found.encode()


class Multipart:
    """Cuts a body into its parts as it comes."""

    def __init__(self, chunks: Iterable[bytes], boundary: bytes, most_bytes: int) -> None:
        """Prepare.

        Args:
            chunks: of the body.
            boundary: from `boundary_of`.
            most_bytes: of one part; a larger one is passed over.
        """
        self._chunks, self._boundary, self._most = iter(chunks), boundary, most_bytes
        self._held = bytearray()

    def parts(self) -> Iterator[bytes | None]:
        """The content of each part in turn; None for one that is too large.

        Raises:
            NotMultipartError: it is cut in no such way.
        """
        first = self._up_to(self._boundary, _LONGEST_HEAD)
        if first is None:
            raise NotMultipartError(f"no part begins with {self._boundary.decode()}")
        while True:
            while len(self._held) < 2 and self._more():
                pass
            if self._held.startswith(b"--"):
                return  # the last one
            length = self._length()
            if length is None:
                content = self._up_to(self._boundary, self._most)
                if content is None and not self._held:
                    return  # half a part, when the connection broke
                yield None if content is None else _without_newline(content)
                if content is None and not self._skip():
                    return
                continue
            if length > self._most:
                yield None
            elif self._fill(length):
                yield bytes(self._held[:length])
                del self._held[:length]
            else:
                return
            if not self._skip():
                return

    def _length(self) -> int | None:
        """Read the headers of a part -> its Content-Length, None where it has none."""
        while b"\n\r\n" not in self._held and b"\n\n" not in self._held:
            if len(self._held) > _LONGEST_HEAD or not self._more():
                raise NotMultipartError("a part has headers without an end")
        ends = [(self._held.find(end), len(end)) for end in (b"\n\r\n", b"\n\n")]
        at, size = min(found for found in ends if found[0] >= 0)
        head = bytes(self._held[:at]).decode("latin-1")
        del self._held[: at + size]
        for line in head.splitlines():
            name, _, value = line.partition(":")
            number = value.strip()
            if name.strip().lower() == "content-length" and number.isdecimal():
                return int(number[:12])
        return None

    def _fill(self, count: int) -> bool:
        while len(self._held) < count:
            if not self._more():
                return False
        return True

    def _skip(self) -> bool:
        """Drop what comes before the next part; False where none comes."""
        keep = len(self._boundary) - 1
        while (at := self._held.find(self._boundary)) < 0:
            del self._held[: max(0, len(self._held) - keep)]
            if not self._more():
                self._held.clear()
                return False
        del self._held[: at + len(self._boundary)]
        return True

    def _up_to(self, end: bytes, most: int) -> bytes | None:
        """What comes before `end`, which is dropped; None where it is more, or no end comes."""
        begin = 0
        while (at := self._held.find(end, begin)) < 0:
            if len(self._held) > most + len(end):
                return None
            begin = max(0, len(self._held) - len(end))
            if not self._more():
                self._held.clear()
                return None
        content = bytes(self._held[:at])
        del self._held[: at + len(end)]
        return content

    def _more(self) -> bool:
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self._held += chunk
        return True


def _without_newline(content: bytes) -> bytes:
    return content.removesuffix(b"\n").removesuffix(b"\r")
