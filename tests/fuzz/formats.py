"""Changes within a format: lengths and checksums made right, so that decoders read on."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from tests.fuzz.mutate import ODD, damaged, mutated

Change = Callable[[bytes, Random], bytes]

_NUMBERS = (0, 1, 2, 3, 7, 8, 9, 16, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def png(content: bytes, random: Random) -> bytes:
    """A PNG whose chunks were changed, moved or doubled, each with its CRC."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    for _ in range(random.randint(1, 3)):
        n = random.randrange(len(chunks))
        kind, data = chunks[n]
        choice = random.randrange(6)
        if choice == 0:
            data = damaged(data, random)
        elif choice == 1 and kind == b"IHDR":
            place = random.choice([0, 4])
            data = data[:place] + struct.pack(">I", random.choice(_NUMBERS)) + data[place + 4 :]
        elif choice == 2 and kind == b"IDAT":
            unpacked = damaged(zlib.decompress(data), random) if _unpacks(data) else b""
            data = zlib.compress(unpacked * random.choice([1, 1, 100]))
        elif choice == 3:
            chunks.insert(n, (kind, data))
        elif choice == 4:
            kind = random.choice([b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"acTL", b"fcTL", b"eXIf"])
        else:
            other = random.randrange(len(chunks))
            chunks[n], chunks[other] = chunks[other], chunks[n]
            continue
        chunks[n] = kind, data
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _unpacks(data: bytes) -> bool:
    try:
        zlib.decompress(data)
    except zlib.error:
        return False
    return True


def npy(content: bytes, random: Random) -> bytes:
    """An array file with another type, order or shape in its header."""
    (size,) = struct.unpack_from("<H", content, 8)
    head = content[10 : 10 + size].decode("latin-1")
    for _ in range(random.randint(1, 2)):
        shape = random.choice(["(6,)", "()", "(0, 24, 32)", "(-1, 2)", f"({2**62}, 4)", "(6, 24)",
                               "(6, 24, 32, 1, 1)", "1", "(True,)", "('a',)"])  # fmt: skip
        kind = random.choice(["'|O'", "'<f8'", "'<U4'", "'|V8'", "[('a', '<f4')]", "'<M8[s]'",
                              "'|u1'", "'>i2'", "'<c16'", "'|S3'", "None", "'<f2'"])  # fmt: skip
        head = random.choice(
            [
                f"{{'descr': {kind}, 'fortran_order': False, 'shape': (6, 24, 32), }}",
                f"{{'descr': '|u1', 'fortran_order': True, 'shape': {shape}, }}",
                head[: random.randrange(len(head) + 1)],
                head.replace("'descr'", "'__import__'"),
            ]
        )
    packed = head.encode("latin-1", "replace").ljust(random.choice([118, 54]), b" ")
    return content[:8] + struct.pack("<H", len(packed)) + packed + content[10 + size :]


def archive(content: bytes, random: Random) -> bytes:
    """A zip with members renamed, doubled, or changed within, their CRCs right."""
    with zipfile.ZipFile(io.BytesIO(content)) as whole:
        members = [(name, whole.read(name)) for name in whole.namelist()]
    n = random.randrange(len(members))
    name, data = members[n]
    choice = random.randrange(5)
    if choice == 0:
        members.append((name, data))
    elif choice == 1:
        members[n] = random.choice(["../x.npy", "/x.npy", "a\x1b[31m.npy", "x" * 300, ""]), data
    elif choice == 2:
        members[n] = name, damaged(data, random)
    elif choice == 3:
        members[n] = name, data[: random.randrange(len(data) + 1)]
    else:
        members[n] = name, npy(data, random) if data[:6] == b"\x93NUMPY" else data
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as z:
        for name, data in members:
            z.writestr(zipfile.ZipInfo(name or "a"), data)
    return out.getvalue()


def hdf5(content: bytes, random: Random) -> bytes:
    """Attributes and datasets of another type, shape or place, written by the library itself."""
    import h5py

    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        for _ in range(random.randint(1, 3)):
            found: list[str] = ["/"]
            file.visit(found.append)
            item = file[random.choice(found)]
            names = list(item.attrs)
            choice = random.randrange(7)
            if choice < 3 and names:
                _set(item.attrs, random.choice(names), random)
            elif choice == 3 and names:
                del item.attrs[random.choice(names)]
            elif choice == 4 and item.name != "/":
                del file[item.name]
            elif choice == 5 and isinstance(item, h5py.Dataset):
                name = item.name
                del file[name]
                kind = random.choice(["f8", "i2", "u1", "S4", "c8", "?", "f2", h5py.string_dtype()])
                shape = random.choice([(), (0,), (1,), (8, 8), (2, 3, 4), (1, 1, 1, 1, 1)])
                file.create_dataset(name, shape, kind)
            else:
                file.create_group(random.choice(["dataset1/data9", "what/what", "image1", "x"]) +
                                  str(random.random()))  # fmt: skip
    return buffer.getvalue()


def _set(attributes: Any, name: str, random: Random) -> None:
    value: Any = random.choice(
        [*ODD, np.nan, np.inf, np.arange(4), b"\xff\xfe", "20240101", "COMP"]
    )
    try:
        attributes[name] = value
    except (TypeError, ValueError, OSError, OverflowError):
        attributes[name] = np.float32(random.choice([0, -1, np.nan, 1e38]))


def tiff(content: bytes, random: Random) -> bytes:
    """Entries of a TIFF's first directory with other types, counts or values."""
    order = "<" if content[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, at)
    changed = bytearray(content)
    for _ in range(random.randint(1, 3)):
        entry = at + 2 + 12 * random.randrange(count)
        what = random.randrange(4)
        if what == 0:
            struct.pack_into(f"{order}H", changed, entry + 2, random.randrange(20))
        elif what == 1:
            struct.pack_into(f"{order}I", changed, entry + 4, random.choice(_NUMBERS))
        elif what == 2:
            struct.pack_into(f"{order}I", changed, entry + 8, random.choice(_NUMBERS))
        else:
            struct.pack_into(f"{order}H", changed, entry, random.choice([256, 257, 258, 259, 273,
                             277, 278, 279, 317, 322, 324, 339, 33550, 34735, 42113]))  # fmt: skip
    return bytes(changed)


def pgm(content: bytes, random: Random) -> bytes:
    """A header of other words and numbers."""
    lines = content.split(b"\n", 12)
    n = random.randrange(len(lines))
    lines[n] = random.choice([b"#", b"P5", b"P2", b"P7", b"-1 -1", b"255", b"65535", b"0 0", b"",
                              b"1e9 1e9", b"100000 100000", b"# obstime \xff", b"9" * 5000,
                              b"# " + b"x" * 9000, lines[n] + b" 1", lines[n][::-1]])  # fmt: skip
    return b"\n".join(lines)


def grib(content: bytes, random: Random) -> bytes:
    """Sections changed within, their lengths and the whole's kept right."""
    edition, head = content[7], 16 if content[7] == 2 else 8
    sections, at = [], head
    while at + 5 <= len(content) and content[at : at + 4] != b"7777":
        size = int.from_bytes(content[at : at + (4 if edition == 2 else 3)], "big")
        if size < 4:
            break
        sections.append(bytearray(content[at : at + size]))
        at += size
    for _ in range(random.randint(1, 3)):
        if not sections:
            return damaged(content, random)
        section = random.choice(sections)
        place = random.randrange(min(len(section), 90))
        width = random.choice([1, 2, 4])
        value = random.choice([n for n in _NUMBERS if n < 256**width])
        section[place : place + width] = value.to_bytes(width, "big")[: len(section) - place]
        if random.randrange(10) == 0:
            sections.append(section)
    if random.randrange(2) and edition == 2:
        for section in sections:
            section[:4] = len(section).to_bytes(4, "big")
    body = b"".join(sections) + b"7777"
    whole = bytearray(content[:head])
    if edition == 2:
        whole[8:16] = (head + len(body)).to_bytes(8, "big")
    return bytes(whole) + body


def flips(content: bytes, random: Random) -> bytes:
    """Bytes changed where they are, so that what lies behind them stays in its place."""
    changed = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 8, 40])):
        place = random.randrange(min(len(changed), random.choice([200, 2000, len(changed)])))
        changed[place] = random.choice([0, 1, 127, 128, 255, random.randrange(256)])
    return bytes(changed)


def safetensors(content: bytes, random: Random) -> bytes:
    """A header of other names, shapes, types and offsets, its length right."""
    (size,) = struct.unpack_from("<Q", content)
    head = json.dumps(mutated(json.loads(content[8 : 8 + size]), random)).encode()
    return struct.pack("<Q", len(head)) + head + content[8 + size :]


_OPERATIONS = ("If", "Loop", "Scan", "Reshape", "Tile", "Expand", "ConstantOfShape", "Range", "Pad",
               "Resize", "TopK", "Einsum", "NonZero", "StringNormalizer", "RandomNormal",
               "Conv")  # fmt: skip
_EXTERNAL = ("/etc/hostname", "../x", "-1", "0", str(2**63), "x", "manifest.json", "step.onnx", "1",
             "", "9" * 5000)  # fmt: skip


def onnx_graph(content: bytes, random: Random) -> bytes:
    """A graph with nodes, inputs, attributes, weights and shapes exchanged, still a graph."""
    import onnx

    model = onnx.ModelProto.FromString(content)
    for _ in range(random.randint(1, 3)):
        _change_graph(model, random)
    packed: bytes = model.SerializeToString()
    return packed


def _change_graph(model: Any, random: Random) -> None:
    graph = model.graph
    node = random.choice(graph.node)
    names = [n for one in graph.node for n in (*one.input, *one.output)]
    names += [one.name for one in graph.initializer] + ["", "nothing", "\x1b[31m", "x" * 300]
    choice = random.randrange(12)
    if choice == 0 and node.input:
        node.input[random.randrange(len(node.input))] = random.choice(names)
    elif choice == 1 and node.output:
        node.output[random.randrange(len(node.output))] = random.choice(names)
    elif choice == 2:
        node.op_type = random.choice([random.choice(graph.node).op_type, *_OPERATIONS, "x" * 200])
    elif choice == 3 and node.attribute:
        attribute = random.choice(node.attribute)
        attribute.i = random.choice([*_NUMBERS, -1, -(2**63), 2**62])
        if attribute.ints:
            attribute.ints[random.randrange(len(attribute.ints))] = random.choice([*_NUMBERS, -1])
    elif choice == 4 and node.attribute:
        attribute = random.choice(node.attribute)
        attribute.type = random.randrange(15)
    elif choice == 5 and graph.initializer:
        weight = random.choice(graph.initializer)
        if weight.dims:
            weight.dims[random.randrange(len(weight.dims))] = random.choice([*_NUMBERS, -1])
        else:
            weight.dims.append(random.choice(_NUMBERS))
    elif choice == 6 and graph.initializer:
        weight = random.choice(graph.initializer)
        for entry in weight.external_data:
            if random.randrange(2):
                entry.value = random.choice(_EXTERNAL)
    elif choice == 7 and graph.initializer:
        random.choice(graph.initializer).data_type = random.randrange(25)
    elif choice == 8:
        values = [*graph.input, *graph.output, *graph.value_info]
        value = random.choice(values).type.tensor_type
        if value.shape.dim:
            value.shape.dim[random.randrange(len(value.shape.dim))].dim_value = random.choice(
                [*_NUMBERS, -1]
            )
        else:
            value.elem_type = random.randrange(25)
    elif choice == 9:
        model.opset_import[0].version = random.choice([0, 1, 7, 13, 17, 18, 21, 99, 2**31])
    elif choice == 10:
        graph.node.append(node)
    else:
        del graph.node[random.randrange(len(graph.node))]


def json_text(document: Any, random: Random) -> bytes:
    """JSON of a document, now and then of a kind that parsers stumble over."""
    text = json.dumps(document)
    choice = random.randrange(12)
    at = random.randrange(len(text) + 1)
    odd = {
        0: "[" * 100_000, 1: '{"a":' * 100_000, 2: "9" * 5000, 3: "1e999", 4: "NaN", 5: "-Infinity",
        6: '"\\ud800"', 7: "\x00", 8: '"a": 1, "a": 2,',
    }.get(choice)  # fmt: skip
    if odd is not None:
        text = text[:at] + odd + text[at:]
    return text.encode("utf-8", "surrogatepass")


CHANGES: dict[str, Change] = {
    "png": png, "npy": npy, "npz": archive, "h5": hdf5, "nc": hdf5, "tif": tiff, "pgm": pgm,
    "grib2": grib, "safetensors": safetensors, "mp4": flips, "mkv": flips, "avi": flips,
    "jpg": flips, "bmp": flips,
}  # fmt: skip
"""Ending -> the change within that format."""
