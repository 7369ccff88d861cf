"""Protobuf's wire format, as much as an ONNX file needs: an edge device has no onnx package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _PART, _FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """One field of a message."""

    number: int
    content: bytes
    """Of a length-delimited field; of another kind its bytes on the wire."""
    value: int
    """Of a varint field; 0 for the other kinds."""
    raw: bytes
    """The whole field as it lies in the message."""

    @property
    def is_number(self) -> bool:
        """Whether it is a varint field."""
        return self.raw[0] & 7 == _VARINT


def fields(message: bytes) -> Iterator[Field]:
    """The fields of a message, in order.

    Raises:
        ValueError: the bytes are no protobuf message; its text says what is wrong with the file.
    """
    at = 0
    while at < len(message):
        start = at
        key, at = _read_varint(message, at)
        kind, value = key & 7, 0
        if kind == _VARINT:
            begin = at
            value, at = _read_varint(message, at)
        elif kind == _PART:
            size, begin = _read_varint(message, at)
            at = begin + size
        elif kind in (_FIXED32, _FIXED64):
            begin, at = at, at + (4 if kind == _FIXED32 else 8)
        else:
            raise ValueError(f"it is no ONNX file (wire type {kind})")
        if at > len(message):
            raise ValueError("it is cut off")
        yield Field(key >> 3, message[begin:at], value, message[start:at])


def number(field: int, value: int) -> bytes:
    """A varint field."""
    return _varint(field << 3 | _VARINT) + _varint(value)


def part(field: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return _varint(field << 3 | _PART) + _varint(len(content)) + content


def numbers(message: Iterable[Field], field: int) -> list[int]:
    """The values of a repeated integer field, packed or not; those below zero as they are."""
    return signed(
        entry.value if entry.is_number else entry.content
        for entry in message
        if entry.number == field
    )


def signed(values: Iterable[int | bytes]) -> list[int]:
    """Integers of a repeated field, each on its own or packed; those below zero as they are."""
    found: list[int] = []
    for value in values:
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            one, at = _read_varint(value, at)
            found.append(one)
    return [value - (1 << 64) if value >> 63 else value for value in found]


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("it is cut off inside a number")
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # as two's complement
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
