"""What the campaign changes and gives to the product: each target prepares, then tries one seed.

An attempt returns in a word what became of the input (`refused`, `used`), and raises what no user
may see. Heavy libraries are imported by the target that needs them.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from stpl_core.errors import StplError
from stpl_core.manifest import GraphName
from tests.fuzz import formats
from tests.fuzz.http_targets import page_requests, server_answers
from tests.fuzz.mutate import damaged, manifest_bytes, mutated, mutated_npz

Attempt = Callable[[int], str]
Prepare = Callable[[Path], Attempt]

DATA = Path(__file__).parents[1] / "data"
TINY, RUN = DATA / "convlstm-tiny.bundle", DATA / "modernn-mini"
SHARED = Path(__file__).parents[3] / "shared"
MOST_PIXELS = 2**22


def _outcome(work: Callable[[], object]) -> str:
    try:
        work()
    except StplError:
        return "refused"
    return "used"


def _verb(words: list[str]) -> str:
    """Run a command line; its output must be plain, its errors a line, its code no traceback's."""
    from stpl_deploy.cli import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    assert code in (0, 2, 3, 4), err.getvalue()[-2000:]
    assert "\x1b" not in out.getvalue() + err.getvalue(), ascii(err.getvalue()[-300:])
    return "refused" if code else "used"


def _bundle(folder: Path) -> tuple[Path, dict[str, Any]]:
    shutil.copytree(TINY, folder / "b")
    document: dict[str, Any] = json.loads((TINY / "manifest.json").read_bytes())
    np.save(folder / "frames.npy", np.random.default_rng(0).random((4, 1, 16, 16), np.float32))
    return folder / "b", document


def manifests(folder: Path) -> Attempt:
    """Opened; what opens is inspected and predicts."""
    from stpl_core.bundle import open_bundle

    bundle, document = _bundle(folder)
    predict = ["predict", str(bundle), str(folder / "frames.npy"), "--out", str(folder / "o.npz"),
               "--overwrite", "--threads", "1"]  # fmt: skip

    def attempt(seed: int) -> str:
        random = Random(seed)
        changed = mutated(document, random)
        content = manifest_bytes(changed)
        if random.randrange(10) == 0:
            content = formats.json_text(changed, random)
        elif random.randrange(20) == 0:
            content = damaged(content, random)
        (bundle / "manifest.json").write_bytes(content)
        if _outcome(partial(open_bundle, bundle)) == "refused":
            return "refused"
        _verb(["inspect", str(bundle), *(["--json"] if seed % 2 else [])])
        return _verb(predict)

    return attempt


GRAPHS: tuple[GraphName, ...] = ("step", "forecast", "rollout")


def graphs(folder: Path) -> Attempt:
    """Judged; what passes is run by ONNX Runtime."""
    from stpl_core.bundle import open_bundle
    from stpl_runtime.engine import open_session
    from stpl_runtime.engines.checked_graphs import check_graphs
    from stpl_runtime.forecast_memory import plan_memory
    from tests.fuzz.test_bundles import put

    bundle, document = _bundle(folder)

    def attempt(seed: int) -> str:
        random = Random(seed)
        name = random.choice(GRAPHS)
        content = (TINY / f"{name}.onnx").read_bytes()
        change = damaged if random.randrange(4) == 0 else formats.onnx_graph
        put(bundle, document, f"{name}.onnx", change(content, random))
        try:
            _outcome(lambda: plan_memory(open_bundle(bundle), "onnx", None))  # before it is judged
            if _outcome(lambda: check_graphs(open_bundle(bundle), [name])) == "refused":
                return "refused"
            return _outcome(partial(_run_graph, open_session, open_bundle(bundle), name))
        finally:
            put(bundle, document, f"{name}.onnx", content)

    return attempt


def _run_graph(open_session: Any, bundle: Any, name: str) -> None:
    session = open_session(bundle, [name], threads=1)
    try:
        frame = np.zeros((1, *bundle.manifest.frame), np.float32)
        if name == "rollout":
            session.rollout(np.repeat(frame[:, None], bundle.manifest.context, 1))
        else:
            getattr(session, name)(frame, session.zero_state())
    finally:
        session.close()


def references(folder: Path) -> Attempt:
    """Of a bundle, verified."""
    from tests.fuzz.test_bundles import put

    bundle, document = _bundle(folder)
    content = (TINY / "reference.npz").read_bytes()

    def attempt(seed: int) -> str:
        random = Random(seed)
        change = random.choice([mutated_npz, formats.archive, damaged])
        put(bundle, document, "reference.npz", change(content, random))
        return _verb(["verify", str(bundle), "--threads", "1"])

    return attempt


def reader(name: str, folder: Path) -> Attempt:
    """Files of one kind, read as a stream does; every eighth as an archive, into one dataset."""
    from stpl_core.reader import ReadOptions
    from stpl_core.readers import registry
    from stpl_core.readers.opening import open_frames, read_pieces
    from stpl_core.safety import budget

    budget.set_most_pixels(MOST_PIXELS)
    content = example(name, folder)
    path = folder / "in" / name
    path.parent.mkdir(exist_ok=True)
    plain = gzip.decompress(content) if name.endswith(".gz") else content
    within = formats.CHANGES.get(path.suffix[1:] if path.suffix != ".gz" else path.suffixes[-2][1:])
    path.write_bytes(content)
    assert open_frames(path).sizes["time"] >= 1

    def attempt(seed: int) -> str:
        random = Random(seed)
        change = within if within is not None and random.randrange(3) else damaged
        found = change(plain, random)
        path.unlink()  # a library that still holds the last one must not see this one in it
        path.write_bytes(gzip.compress(found, 1) if name.endswith(".gz") else found)
        if seed % 8 == 0:
            return _outcome(lambda: open_frames(path).load().close())
        return _outcome(lambda: list(read_pieces(registry.choose(path), path, ReadOptions())))

    return attempt


def example(name: str, folder: Path) -> bytes:
    """A whole, small file of this name."""
    from tests.fuzz.test_readers import KINDS

    radar = SHARED / "data" / "radar"
    if name in KINDS:
        KINDS[name][0](folder / name)
        return (folder / name).read_bytes()
    if name.endswith(".pgm.gz"):
        head = b"P5\n# obstime 201609281445\n# param CorrectedReflectivity\n"
        real = gzip.decompress(next((radar / "fmi_pgm").rglob("*.gz")).read_bytes())
        comments = b"".join(line + b"\n" for line in real.split(b"\n")[:60] if line[:1] == b"#")
        return gzip.compress((b"P5\n" + comments if comments else head) + b"32 24\n255\n"
                             + bytes(range(256)) * 3)  # fmt: skip
    if name.startswith("RAD_NL25"):
        return small_knmi(next((radar / "knmi_hdf5").rglob("*.h5")), folder / name)
    if name.startswith("PrecipRate"):
        return small_grib()
    raise ValueError(name)


def small_knmi(whole: Path, path: Path) -> bytes:
    """A field of 24x32 values as KNMI writes them, from the corner of a whole one."""
    import h5py

    shutil.copy(whole, path)
    with h5py.File(path, "r+") as file:
        image = file["image1/image_data"]
        values, facts = image[:24, :32], dict(image.attrs)
        del file["image1/image_data"]
        small = file.create_dataset("image1/image_data", data=values, compression=6)
        small.attrs.update(facts)
        rows, columns = (file["geographic"].attrs[f"geo_number_{n}"] for n in ("rows", "columns"))
        file["geographic"].attrs["geo_number_rows"] = np.full_like(rows, 24)
        file["geographic"].attrs["geo_number_columns"] = np.full_like(columns, 32)
    return path.read_bytes()


_SMALL_GRIB = """
import sys, eccodes, numpy
with open(sys.argv[1], "rb") as file:
    message = eccodes.codes_grib_new_from_file(file)
eccodes.codes_set(message, "packingType", "grid_simple")
eccodes.codes_set(message, "Ni", 32)
eccodes.codes_set(message, "Nj", 24)
eccodes.codes_set_values(message, numpy.arange(768.0) % 50)
sys.stdout.buffer.write(eccodes.codes_get_message(message))
"""


def small_grib() -> bytes:
    """A field of 24x32 values as MRMS writes them, but for the packing."""
    whole = next((SHARED / "data" / "radar" / "mrms_grib2").rglob("*.grib2"))
    # eccodes brings its own PROJ, which pyproj does not bear in one process.
    made = subprocess.run(
        [sys.executable, "-c", _SMALL_GRIB, str(whole)], capture_output=True, check=True
    )
    return made.stdout


def zarr_stores(folder: Path) -> Attempt:
    """Metadata and chunks of a store."""
    from stpl_core.readers.opening import open_frames
    from stpl_core.safety import budget
    from tests.fuzz.test_readers import cf

    budget.set_most_pixels(MOST_PIXELS)
    cf(folder / "whole.zarr")
    store = folder / "a.zarr"
    files = [p.relative_to(folder / "whole.zarr") for p in (folder / "whole.zarr").rglob("*")]
    files = sorted(file for file in files if (folder / "whole.zarr" / file).is_file())
    heads = [file for file in files if file.name.startswith(".z")]
    shutil.copytree(folder / "whole.zarr", store)

    def attempt(seed: int) -> str:
        random = Random(seed)
        inside = random.choice(heads * 3 + files)
        content = (folder / "whole.zarr" / inside).read_bytes()
        if inside.name.startswith(".z") and random.randrange(4):
            found = formats.json_text(mutated(json.loads(content), random), random)
        else:
            found = damaged(content, random)
        (store / inside).write_bytes(found)
        try:
            return _outcome(lambda: open_frames(store).load().close())
        finally:
            (store / inside).write_bytes(content)

    return attempt


def messages(folder: Path) -> Attempt:
    """Messages of queues: bodies, names and facts, as they are and as notifications."""
    from stpl_core.codec import FrameCodec
    from stpl_runtime.options import Options
    from stpl_runtime.source import SourceSpec
    from stpl_runtime.sources.messages import OPTIONS, Messages
    from stpl_runtime.sources.queue_message import Message

    names = [n for n in READERS if "grib" not in n and n[-3:] not in ("mp4", "mkv", "avi")]
    whole = {name: example(name, folder) for name in names}
    spec = SourceSpec((1, 24, 32), FrameCodec(), cadence_s=300.0)
    plain = Messages(spec, Options("mqtt", {}, OPTIONS))
    fetching = Messages(spec, Options("mqtt", {"fetch": "yes"}, OPTIONS))
    facts: dict[str, Any] = {"name": "a.npy", "valid_time": "2024-01-01T00:00:00Z",
                             "dtype": "float32", "shape": "[24, 32]"}  # fmt: skip

    def attempt(seed: int) -> str:
        random = Random(seed)
        name = random.choice(names)
        change = formats.CHANGES.get(name.rpartition(".")[2], damaged)
        content = (change if random.randrange(2) else damaged)(whole[name], random)
        if random.randrange(6) == 0:
            content = random.choice([gzip.compress, zlib.compress])(content)
        if random.randrange(4) == 0:
            return _frames(fetching.arrivals(Message(_notification(content, random), "t", {})))
        bare = random.randrange(6) == 0
        if bare:
            content = bytes(random.choice([3072, 3072, 3071, 0, 6144]))
        topic = random.choice([name, "a/b/" + name, "a\x1b[2J.png", "x" * 300, "..", "a.nc.gz"])
        given = facts if bare else {"name": name, "valid_time": facts["valid_time"]}
        changed = mutated(given, random) if random.randrange(2) else given
        found = {key: str(value) for key, value in changed.items()}
        for key in random.sample(sorted(found), random.choice([0, 0, 0, min(len(found), 1)])):
            del found[key]
        return _frames(plain.arrivals(Message(content, topic, found)))

    return attempt


def _notification(content: bytes, random: Random) -> bytes:
    inline = base64.b64encode(random.choice([gzip.compress, bytes])(content)).decode()
    document = {"properties": {
        "datetime": "2024-01-01T00:00:00Z", "data_id": "a.npy",
        "content": {"encoding": random.choice(["base64", "gzip", "utf-8"]), "value": inline},
    }, "links": [{"rel": "canonical", "href": "file:///etc/hostname"}]}  # fmt: skip
    return formats.json_text(mutated(document, random), random)


def _frames(arrivals: Any) -> str:
    from stpl_runtime.source import BadFrame

    items = [arrival.item for arrival in arrivals]
    assert items
    return "refused" if isinstance(items[0], BadFrame) else "used"


def states(folder: Path) -> Attempt:
    """State files: taken up or set aside, the stream runs on."""
    from stpl_core.bundle import open_bundle
    from stpl_runtime.engine import open_session
    from tests.fuzz.test_states import made, saved_states, with_other_facts
    from tests.runtime.conftest import make_frame

    session = open_session(open_bundle(TINY), ["step", "forecast", "rollout"], threads=1)
    saved = saved_states(session, folder)

    def attempt(seed: int) -> str:
        random = Random(seed)
        mode = random.choice(["window", "carry"])
        change = random.choice([with_other_facts, with_other_facts, mutated_npz, formats.archive])
        for old in folder.glob("s.state*"):
            old.unlink()
        (folder / "s.state").write_bytes(change(saved[mode], random))
        nowcaster, file = made(session, folder / "s.state", mode)
        lines: list[str] = []

        def use() -> None:
            lines.append(file.restore())
            for slot in range(6, 9):
                nowcaster.put(make_frame(slot))
                nowcaster.issue()
            file.save(published=True)

        found = _outcome(use)
        assert all(line.isprintable() for line in lines), lines
        return found

    return attempt


def runs(folder: Path) -> Attempt:
    """Run directories, inspected; now and then evaluated."""
    import tomllib

    from tests.fuzz.test_runs import toml

    shutil.copytree(RUN, folder / "run")
    whole = {file.name: file.read_bytes() for file in RUN.iterdir()}

    def attempt(seed: int) -> str:
        random = Random(seed)
        name = random.choice(["recipe.toml"] * 12 + sorted(whole))
        content = whole[name]
        if name == "recipe.toml" and random.randrange(4):
            changed = toml(mutated(tomllib.loads(content.decode()), random))
        elif name.endswith(".safetensors") and random.randrange(2):
            changed = formats.safetensors(content, random)
        elif name.endswith(".npz"):
            changed = mutated_npz(content, random)
        else:
            changed = damaged(content, random)
        (folder / "run" / name).write_bytes(changed)
        try:
            if name.endswith((".npz", ".safetensors")):
                words = ["evaluate", str(folder / "run"), "--baseline", "persistence"]
                return _verb([*words, "--threads", "1"])
            return _verb(["inspect", str(folder / "run")])
        finally:
            (folder / "run" / name).write_bytes(content)

    return attempt


def recipes(folder: Path) -> Attempt:
    """Recipes, read and checked."""
    from stpl_train.recipe import load_recipe
    from stpl_train.recipe_text import shipped_recipes
    from tests.fuzz.test_runs import toml

    whole = [load_recipe(n).model_dump(mode="json", exclude_none=True) for n in shipped_recipes()]
    path = folder / "own.toml"

    def attempt(seed: int) -> str:
        random = Random(seed)
        content = toml(mutated(random.choice(whole), random))
        if random.randrange(4) == 0:
            content = damaged(content, random)
        elif random.randrange(10) == 0:
            odd = ["[" * 5000, "a = " + "[" * 50_000, "x" * 10**6, "a" + ".a" * 20_000 + " = 1",
                   "a = 9" + "9" * 5000, "a = " + "{a=" * 5000, "a = 1\n" * 2]  # fmt: skip
            content = random.choice(odd).encode() + b"\n" + content
        path.write_bytes(content)
        return _outcome(lambda: load_recipe(str(path)))

    return attempt


def parts(folder: Path) -> Attempt:
    """Directories in parts, joined; nothing is left beside them."""
    from stpl_core.parts import INDEX, join, split

    split(TINY, folder / "parts", 20_000)
    whole = {path.name: path.read_bytes() for path in (folder / "parts").iterdir()}
    document = json.loads(whole[INDEX])

    def attempt(seed: int) -> str:
        random = Random(seed)
        name = random.choice([INDEX] * 4 + sorted(whole))
        content = damaged(whole[name], random)
        if name == INDEX:
            content = formats.json_text(mutated(document, random), random)
        (folder / "parts" / name).write_bytes(content)
        found = _outcome(lambda: join(folder / "parts", folder / "joined"))
        (folder / "parts" / name).write_bytes(whole[name])
        shutil.rmtree(folder / "joined", ignore_errors=True)
        assert [path.name for path in folder.iterdir()] == ["parts"], sorted(folder.iterdir())
        return found

    return attempt


def checkpoints(folder: Path) -> Attempt:
    """Containers of other projects, read."""
    from stpl_train.importers.containers import read_container

    files = sorted(p for p in (SHARED / "reference").rglob("*")
                   if p.name.endswith((".ckpt", ".pth", ".tar", ".chk")))  # fmt: skip
    files.sort(key=lambda path: path.stat().st_size)
    whole = {path.name: path.read_bytes() for path in files[:8]}
    safe = (RUN / "weights.safetensors").read_bytes()

    def attempt(seed: int) -> str:
        random = Random(seed)
        name, content = random.choice([*whole.items(), ("w.safetensors", safe)])
        change: formats.Change = damaged
        if name.endswith("safetensors") and random.randrange(3):
            change = formats.safetensors
        elif content[:2] == b"PK" and random.randrange(2):
            change = formats.archive
        elif random.randrange(2):
            # The pickle lies at the start of the older kind; most of the bytes are weights.
            content = damaged(content[:3000], random) + content[3000:]
        path = folder / name
        path.write_bytes(change(content, random))
        return _outcome(lambda: read_container(path))

    return attempt


def grib_messages(folder: Path) -> Attempt:
    """What the decoding process does, in this one: a process for each takes a second."""
    from stpl_core.readers.grib_process import send_messages

    content = small_grib()

    def attempt(seed: int) -> str:
        random = Random(seed)
        (folder / "a.grib2").write_bytes((formats.grib if seed % 3 else damaged)(content, random))
        try:
            with (folder / "a.grib2").open("rb") as file:
                send_messages(file, io.BytesIO(), MOST_PIXELS)
        except Exception:  # reported by the process in one line, whatever it is
            return "refused"
        return "used"

    return attempt


READERS = (
    "a_202401010000.png", "a_202401010000.bmp", "a_202401010000.jpg", "a_202401010000.pgm",
    "a.npy", "a.npz", "a.h5", "a.nc", "a_202401010000.tif", "a.mp4", "a.mkv", "a.avi",
    "201609281445_fmi.radar.composite.lowest_FIN_SUOMI1.pgm.gz",
    "RAD_NL25_RAP_5min_201008260000.h5", "PrecipRate_00.00_20190610-000000.grib2",
)  # fmt: skip

TARGETS: dict[str, Prepare] = {
    "manifests": manifests,
    "graphs": graphs,
    "references": references,
    "states": states,
    "runs": runs,
    "recipes": recipes,
    "parts": parts,
    "checkpoints": checkpoints,
    "messages": messages,
    "zarr": zarr_stores,
    "page requests": page_requests,
    "server answers": server_answers,
    "grib": grib_messages,
    **{f"reader {name}": partial(reader, name) for name in READERS},
}
