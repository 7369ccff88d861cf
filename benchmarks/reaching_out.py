"""Which files hostile inputs open and whom they ask, as the system sees it (strace).

    python -m benchmarks.reaching_out [--out RESULTS.json]

Each input is given to the command line as its user would. The libraries below Python (HDF5, GDAL,
FFmpeg, eccodes, ONNX Runtime) are seen as well. Counted: files that lie neither with the input nor
with the program, connections, programs started. A server and a secret file wait to be reached.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.core.readers.hostile import Marks, make_all

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
TINY, RUN = DATA / "convlstm-tiny.bundle", DATA / "modernn-mini"
_SYSTEM = ("/usr/", "/lib", "/proc/", "/sys/", "/dev/", "/etc/ld.so", "/etc/localtime",
           "/etc/mime.types", "/etc/os-release", "/etc/nsswitch.conf", "/etc/passwd",
           # The engines look for devices, drawing libraries for fonts.
           "/etc/OpenCL/", "/etc/nv_tegra_release", "/etc/fonts/",
           "/var/cache/fontconfig/")  # fmt: skip
_CALL = re.compile(r"^(?:\d+ +)?(openat|open|connect|execve)\((?:AT_FDCWD, )?(.*)$")
_OWN_PROGRAM = re.compile(r"/(python[\d.]*|uname|fc-list)$")
_NAME_SERVICE = "/var/run/nscd/socket"
"""Asked by the C library where a user's name or home is looked up."""
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
Words = list[str]


def bundle_cases(room: Path, secret: Path) -> dict[str, Words]:
    """Bundles of a stranger, their checksums right."""
    from tests.runtime.engines.test_hostile_bundles import (
        change_graph,
        change_manifest,
        external,
    )

    made: dict[str, Words] = {}

    def case(name: str, change: Callable[[Path], None], *verb: str) -> None:
        bundle = Path(shutil.copytree(TINY, room / name / "b"))
        change(bundle)
        made[name] = [verb[0] if verb else "verify", str(bundle), *verb[1:]]

    def foreign(document: dict[str, Any]) -> None:
        document["model"]["name"] = "payload:Model"

    def linked(bundle: Path) -> None:
        (bundle / "weights.safetensors").unlink()
        (bundle / "weights.safetensors").symlink_to(secret)

    def pickled(bundle: Path) -> None:
        with zipfile.ZipFile(bundle / "reference.npz", "w") as archive:
            archive.writestr("frames.npy", pickle.dumps(Marks(room / "mark")))

    case("onnx weights at an absolute path", lambda b: change_graph(b, external(str(secret))))
    case("onnx weights above the bundle", lambda b: change_graph(b, external("../../../secret")))
    for kind, place in _PLACES.items():
        case(f"onnx weights at {kind}", partial(change_graph, change=external(place)))
    case("functions of its own", lambda b: change_graph(b, own_function))
    case("an operation that loads a library", lambda b: change_graph(b, own_domain))
    case("a header of weights without end", lambda b: bomb(b / "weights.safetensors"))
    case("a folder that is a link", linked_folder)
    case("weights that are a link", linked)
    case("a foreign class in the manifest", lambda b: change_manifest(b, foreign), "inspect")
    case("a foreign class for bench", lambda b: change_manifest(b, foreign), "bench",
         "--rounds", "3", "--threads", "1")  # fmt: skip
    case("a pickled reference", pickled)
    return made


_PLACES = {
    "a path of Windows": "C:\\secret", "a relative one of Windows": "..\\..\\secret",
    "a share": "\\\\127.0.0.1\\share\\secret", "an address": "http://127.0.0.1:9/w",
    "an address of a file": "file:///etc/hostname", "a device": "/dev/stdin",
    "the bundle, twice over": "../b/weights.safetensors",
}  # fmt: skip


def own_function(model: Any) -> None:
    """A function that the graph brings, under the name of a standard operation."""
    from onnx import helper

    node = helper.make_node("Identity", ["x"], ["y"])
    opset = helper.make_opsetid("", 18)
    model.functions.append(helper.make_function("", "Sigmoid", ["x"], ["y"], [node], [opset]))


def own_domain(model: Any) -> None:
    """An operation of another domain."""
    model.graph.node[0].domain, model.graph.node[0].op_type = "com.microsoft", "EPContext"
    model.opset_import.add(domain="com.microsoft", version=1)


def bomb(path: Path) -> None:
    """A header of safetensors that claims to be all there is in the world; checksums right."""
    from tests.runtime.engines.test_hostile_bundles import reseal

    content = path.read_bytes()
    path.write_bytes((2**62).to_bytes(8, "little") + content[8:])
    reseal(path.parent)


def linked_folder(bundle: Path) -> None:
    """The files of a bundle behind a folder that is a link."""
    from tests.runtime.engines.test_hostile_bundles import change_manifest

    elsewhere = bundle.parent / "elsewhere"
    elsewhere.mkdir()
    (bundle / "weights.safetensors").rename(elsewhere / "weights.safetensors")
    (bundle / "in").symlink_to(elsewhere)

    def deeper(document: dict[str, Any]) -> None:
        files = document["files"]
        files["in/weights.safetensors"] = files.pop("weights.safetensors")

    change_manifest(bundle, deeper)


def training_cases(room: Path, secret: Path) -> dict[str, Words]:
    """Runs, recipes, checkpoints and parts of a stranger."""
    import torch

    made: dict[str, Words] = {}
    text = (RUN / "recipe.toml").read_text()
    foreign = re.sub(r"^name = .*$", 'name = "payload:Model"', text, count=1, flags=re.MULTILINE)
    for verb in ("inspect", "export", "evaluate"):
        run = Path(shutil.copytree(RUN, room / f"a foreign class for {verb}" / "run"))
        (run / "recipe.toml").write_text(foreign)
        out = ["--out", str(run.parent / "out")] if verb == "export" else []
        made[run.parent.name] = [verb, str(run), *out]
    foreign_data = 'extends = "convlstm-mmnist"\n[data]\nsource = "payload:Model"\n'
    lines = {
        "a recipe that extends a file": f'extends = "{secret}"\n',
        "a recipe that extends one that is a link": 'extends = "link.toml"\n',
        "a recipe that extends an inner module": 'extends = "payload:Model"\n',
        "a recipe of a nested foreign class": f'{foreign}\n[model.cell]\nname = "payload:Cell"\n',
        "a recipe that names a method": foreign.replace("payload:Model", "os:system"),
        "a recipe that names an entry point": foreign.replace("payload:Model", "payload.Model"),
        "a recipe that unfolds to itself": 'extends = "r.toml"\n',
        "a recipe that extends an address": 'extends = "http://127.0.0.1:9/a"\n',
        "a recipe of foreign data": foreign_data,
    }
    for name, line in lines.items():
        (room / name).mkdir()
        (room / name / "r.toml").write_text(line)
        (room / name / "link.toml").symlink_to(secret)
        made[name] = ["train", str(room / name / "r.toml"), "--out", str(room / name / "out")]
    for name, save in (("a checkpoint that runs code", torch.save), ("an older one", _old_save)):
        (room / name).mkdir()
        save({"state_dict": Marks(room / "mark")}, room / name / "a.pth")
        made[name] = ["import", str(room / name / "a.pth"), "--out", str(room / name / "out"),
                      "--from", "openstl"]  # fmt: skip
    return made


def _old_save(what: Any, path: Path) -> None:
    import torch

    torch.save(what, path, _use_new_zipfile_serialization=False)


def cases(room: Path, url: str) -> dict[str, Words]:
    """Every input with its command line."""
    secret = room / "secret"
    secret.write_bytes(b"SECRET" * 64)
    made = {}
    for path in make_all(room / "files", secret, url):
        made[path.name] = ["data", "convert", str(path), "--out", str(path.parent / "o.npz")]
    inputs = room / "inputs"
    return {**made, **bundle_cases(inputs, secret), **training_cases(inputs, secret)}


def _run_all(room: Path, url: str) -> None:
    """In the traced process: each case, its name opened before it so that the trace shows it."""
    from stpl_deploy.cli import run

    made = cases(room, url)
    codes: dict[str, Any] = {}
    for name, words in made.items():
        _mark(f"/case/{name}")
        log = os.open(room / "log", os.O_CREAT | os.O_TRUNC | os.O_RDWR)
        before = [os.dup(stream) for stream in (1, 2)]
        for stream in (1, 2):
            os.dup2(log, stream)
        try:
            code: Any = run(words)
        except BaseException as error:  # must not be
            code = repr(error)
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, own in zip((1, 2), before, strict=True):
            os.dup2(own, stream)
            os.close(own)
        os.close(log)
        errors = [n for n in (room / "log").read_text().splitlines() if n.startswith("error")]
        codes[name] = {"exit": code, "lines": len(errors), "says": "".join(errors[:1])[:200]}
    _mark("/case/")
    (room / "codes.json").write_text(json.dumps(codes))


def _mark(path: str) -> None:
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDONLY))


def beyond(trace: str, room: Path) -> dict[str, dict[str, list[str]]]:
    """What each case reached that is neither its own nor the program's."""
    allowed = (*_SYSTEM, sys.prefix, sys.base_prefix, str(ROOT), *filter(None, sys.path))
    found: dict[str, dict[str, list[str]]] = defaultdict(
        lambda: {"files": [], "connections": [], "programs": []}
    )
    name = ""
    for line in trace.splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        path = _PATH.search(call[2])
        text = path[1] if path else ""
        if text.startswith("/case/"):
            name = text[6:]
        elif name and call[1] == "connect" and text != _NAME_SERVICE:
            found[name]["connections"].append(call[2][:100])
        elif name and call[1] == "execve" and not _OWN_PROGRAM.search(text):
            found[name]["programs"].append(text)
        elif name and call[1].startswith("open") and text.startswith("/"):
            own = (str(room / "files" / name.replace(".", "_")), str(room / "inputs" / name))
            program = (*allowed, *(str(room / word) for word in ("tmp", "home", "log")))
            if not text.startswith((*own, *program)):
                found[name]["files"].append(text)
    return found


def main() -> None:
    """Trace all, print a line for each, write the counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", nargs=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.child:
        _run_all(Path(options.child[0]), options.child[1])
        return
    from tests.core.readers.test_reaching_out import asked_server

    with tempfile.TemporaryDirectory() as folder, asked_server() as (url, asked):
        room = Path(folder)
        for name in ("tmp", "home", "inputs"):
            (room / name).mkdir()
        environment = {**os.environ, "TMPDIR": str(room / "tmp"), "HOME": str(room / "home")}
        calls = ["strace", "-f", "-qq", "-s", "300", "-o", str(room / "trace"),
                 "-e", "trace=openat,open,connect,execve"]  # fmt: skip
        subprocess.run(
            [*calls, sys.executable, "-m", "benchmarks.reaching_out", "--child", folder, url],
            env=environment, check=True,
        )  # fmt: skip
        reached = beyond((room / "trace").read_text(errors="replace"), room)
        codes = json.loads((room / "codes.json").read_text())
        rows = {name: {**facts, **reached.get(name, {})} for name, facts in codes.items()}
        result = {
            "inputs": len(rows),
            "server asked": len(asked),
            "code run": (room / "mark").exists() or (room / "inputs" / "mark").exists(),
            **{f"{word} beyond those named": sum(len(row.get(word, [])) for row in rows.values())
               for word in ("files", "connections", "programs")},
            "cases": rows,
        }  # fmt: skip
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
