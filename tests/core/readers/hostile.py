"""Files that would reach out, run code or fill memory, made harmlessly: each would leave a mark.

A secret file must stay unread, a local server unasked, a marker file absent.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Maker = Callable[[Path, Path, str], None]
"""(the file to make, the secret to read, the URL to ask)"""


class Marks:
    """Unpickled, it touches a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def vrt(source: str, raw: bool = False) -> str:
    kind = ' subClass="VRTRawRasterBand"' if raw else ""
    inside = (
        f'<SourceFilename relativeToVRT="0">{source}</SourceFilename><ImageOffset>0</ImageOffset>'
        "<PixelOffset>1</PixelOffset><LineOffset>8</LineOffset>"
        if raw
        else f"<SimpleSource><SourceFilename>{source}</SourceFilename>"
        "<SourceBand>1</SourceBand></SimpleSource>"
    )
    return (
        '<VRTDataset rasterXSize="8" rasterYSize="8">'
        f'<VRTRasterBand dataType="Byte" band="1"{kind}>'
        f"{inside}</VRTRasterBand></VRTDataset>"
    )


def vrt_raw(path: Path, secret: Path, url: str) -> None:
    path.write_text(vrt(str(secret), raw=True))


def vrt_url(path: Path, secret: Path, url: str) -> None:
    path.write_text(vrt(f"/vsicurl/{url}/x.tif"))


def odim(path: Path, secret: Path, url: str, how: str) -> None:
    import h5py

    projection = "+proj=longlat +ellps=WGS84"
    if how == "nadgrids":
        projection = f"+proj=longlat +ellps=bessel +nadgrids={secret}"
    if how == "init":
        projection = f"+init={secret}:1"
    with h5py.File(path, "w") as file:
        file.create_group("what").attrs.update(object="COMP", date="20240101", time="120000")
        corners = {"LL_lon": 0.0, "LL_lat": 50.0, "UR_lon": 8.0, "UR_lat": 58.0}
        where = {"projdef": projection, **corners}
        file.create_group("where").attrs.update(where)
        data = file.create_group("dataset1/data1")
        data.create_group("what").attrs.update(quantity="DBZH", gain=0.5, offset=-32.0)
        file.create_group("dataset1/what")
        if how == "external":
            data.create_dataset("data", (8, 8), "u1", external=[(str(secret), 0, 64)])
        elif how == "link":
            data["data"] = h5py.ExternalLink(str(secret), "/data")
        elif how == "soft":
            file["way"] = h5py.ExternalLink(str(secret), "/")
            data["data"] = h5py.SoftLink("/way/data")
        elif how == "virtual":
            layout = h5py.VirtualLayout((8, 8), "u1")
            layout[:] = h5py.VirtualSource(str(secret), "data", (8, 8), "u1")
            data.create_virtual_dataset("data", layout)
        elif how == "huge":
            data.create_dataset("data", (60_000, 60_000), "u1", chunks=(1000, 1000))
        else:
            data["data"] = np.zeros((8, 8), "u1")


def netcdf_external(path: Path, secret: Path, url: str) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, size in (("time", 1), ("y", 8), ("x", 8)):
            file[name] = np.arange(size, dtype="f8")
            file[name].make_scale(name)
        file["time"].attrs["units"] = "hours since 2024-01-01"
        rain = file.create_dataset("rain", (1, 8, 8), "u1", external=[(str(secret), 0, 64)])
        for axis, name in enumerate(("time", "y", "x")):
            rain.dims[axis].attach_scale(file[name])
        rain.attrs["units"] = "mm h-1"


def playlist(kind: str) -> Maker:
    def make(path: Path, secret: Path, url: str) -> None:
        path.write_text(
            {
                "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n"
                f"{url}/a.ts\n#EXT-X-ENDLIST\n",
                "hls-file": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n"
                f"file://{secret}\n#EXT-X-ENDLIST\n",
                "concat": f"ffconcat version 1.0\nfile '{secret}'\n",
                "concat-url": f"ffconcat version 1.0\nfile '{url}/a.mp4'\n",
                "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" '
                'type="static" mediaPresentationDuration="PT1S"><Period><AdaptationSet>'
                '<Representation id="1" bandwidth="1" mimeType="video/mp4">'
                f"<BaseURL>{url}/a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
            }[kind]
        )

    return make


def eps(path: Path, secret: Path, url: str) -> None:
    path.write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
        f"({secret}) (r) file closefile\nshowpage\n%%EOF\n"
    )


def pickled_npy(path: Path, secret: Path, url: str) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.array([[Marks(secret.with_name("mark"))]], object))


def pickled_npz(path: Path, secret: Path, url: str) -> None:
    pickled_npy(inner := path.with_suffix(".inner"), secret, url)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, "frames.npy")
    inner.unlink()


def zarr2(path: Path, secret: Path, url: str, how: str) -> None:
    """A store of Zarr 2, by hand: newer libraries no longer write these."""
    (path / "rain").mkdir(parents=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    about: dict[str, Any] = {
        "zarr_format": 2, "shape": [1, 8, 8], "chunks": [1, 8, 8], "dtype": "|u1", "order": "C",
        "compressor": None, "filters": None, "fill_value": 0,
    }  # fmt: skip
    chunk = bytes(64)
    if how == "pickle":
        about |= {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 4}]}
        chunk = pickle.dumps([Marks(secret.with_name("mark"))])
    if how == "object":
        about |= {"dtype": "|O"}
    if how == "huge":
        about |= {"shape": [1, 10**6, 10**6], "chunks": [1, 10**6, 10**6]}
    (path / "rain" / ".zarray").write_text(json.dumps(about))
    (path / "rain" / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["time", "y", "x"]}')
    if how == "link":
        (path / "rain" / "0.0.0").symlink_to(secret)
    else:
        (path / "rain" / "0.0.0").write_bytes(chunk)
    if how == "consolidated":  # what consolidated metadata say differs from what lies there
        about |= {"dtype": "|O", "filters": [{"id": "pickle"}]}
        together = {"zarr_consolidated_format": 1, "metadata": {"rain/.zarray": about}}
        (path / ".zmetadata").write_text(json.dumps(together))
    if how == "outside":
        together = {"zarr_consolidated_format": 1, "metadata": {"../secret/.zarray": about}}
        (path / ".zmetadata").write_text(json.dumps(together))


def zarr3_pickle(path: Path, secret: Path, url: str) -> None:
    (path / "rain").mkdir(parents=True)
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    inner = [{"name": "numcodecs.pickle", "configuration": {}}]
    sharded = {"chunk_shape": [1, 8, 8], "codecs": inner, "index_codecs": [{"name": "crc32c"}]}
    about = {
        "zarr_format": 3, "node_type": "array", "shape": [1, 8, 8], "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 8, 8]}},
        "chunk_key_encoding": {"name": "default"}, "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharded}],
    }  # fmt: skip
    (path / "rain" / "zarr.json").write_text(json.dumps(about))


def zarr3_codec(path: Path, secret: Path, url: str, codec: str) -> None:
    """A codec that nobody knows, or one that is code, behind another that is plain."""
    zarr3_pickle(path, secret, url)
    about = json.loads((path / "rain" / "zarr.json").read_text())
    plain = [{"name": "transpose", "configuration": {"order": [0, 1, 2]}}, {"name": "bytes"}]
    about["codecs"] = [*plain, {"name": codec, "configuration": {"id": "pickle", "path": url}}]
    (path / "rain" / "zarr.json").write_text(json.dumps(about))


def zarr3_shards(path: Path, secret: Path, url: str) -> None:
    """A pickle in the index of shards of shards."""
    zarr3_pickle(path, secret, url)
    about = json.loads((path / "rain" / "zarr.json").read_text())
    inner = about["codecs"][0]
    pickled = [{"name": "numcodecs.pickle", "configuration": {}}]
    inner["configuration"] |= {"codecs": [{"name": "bytes"}], "index_codecs": pickled}
    outer = {"chunk_shape": [1, 8, 8], "codecs": [inner], "index_codecs": [{"name": "crc32c"}]}
    about["codecs"] = [{"name": "sharding_indexed", "configuration": outer}]
    (path / "rain" / "zarr.json").write_text(json.dumps(about))


def film_elsewhere(path: Path, secret: Path, url: str, how: str) -> None:
    """An MP4 whose samples lie in another file, as QuickTime allows."""
    import av

    with av.open(str(path), "w", format="mp4") as film:
        stream = film.add_stream("mpeg4", 5)
        stream.width = stream.height = 32
        for value in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * value, np.uint8))
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    content = path.read_bytes()
    if how == "url":
        entry = b"url " + bytes(4) + f"file://{secret}".encode() + b"\0"
    else:  # an alias of the Macintosh, by its absolute path
        text = str(secret).encode()
        tail = b"\0\x02" + len(text).to_bytes(2, "big") + text + b"\0" * (len(text) % 2)
        record = bytes(8) + bytes(142) + tail + b"\xff\xff\0\0"
        entry = b"alis" + bytes(4) + record
    old = b"\0\0\0\x0curl \0\0\0\x01"
    assert content.count(old) == 1
    new = (4 + len(entry)).to_bytes(4, "big") + entry
    at = content.index(old)
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        place = content.rindex(box, 0, at) - 4
        size = int.from_bytes(content[place : place + 4], "big") + len(new) - len(old)
        content = content[:place] + size.to_bytes(4, "big") + content[place + 4 :]
    path.write_bytes(content.replace(old, new))


def by(make: Callable[[Path, Path, str, str], None], how: str) -> Maker:
    return lambda path, secret, url: make(path, secret, url, how)


HOSTILE: dict[str, Maker] = {
    "vrt_raw_202401010000.tif": vrt_raw,
    "vrt_url_202401010000.tif": vrt_url,
    **{
        f"{how}.h5": by(odim, how)
        for how in ("external", "link", "soft", "virtual", "nadgrids", "init")
    },
    "huge.h5": by(odim, "huge"),
    "external.nc": netcdf_external,
    **{
        f"{kind}.{end}": playlist(kind)
        for kind in ("hls", "hls-file", "concat", "concat-url", "dash")
        for end in ("mp4", "avi")
    },
    **{f"eps1.{end}": eps for end in ("png", "jpg", "bmp")},
    "pickled.npy": pickled_npy,
    "pickled.npz": pickled_npz,
    **{
        f"{how}.zarr": by(zarr2, how)
        for how in ("pickle", "object", "huge", "link", "consolidated", "outside")
    },
    "zarr3.zarr": zarr3_pickle,
    "unknown.zarr": by(zarr3_codec, "somebody.codec"),
    "numcodecs.zarr": by(zarr3_codec, "numcodecs.json2"),
    "shards.zarr": zarr3_shards,
}
"""Name -> what makes it. Every one must be refused."""


def make_all(folder: Path, secret: Path, url: str) -> Iterator[Path]:
    """Make each, in a folder of its own."""
    for name, make in HOSTILE.items():
        path = folder / name.replace(".", "_") / name
        path.parent.mkdir(parents=True)
        make(path, secret, url)
        yield path
