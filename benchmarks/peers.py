"""Every engine for the CPU beside PyTorch, at paper size; writes benchmarks/results/peers.json.

    python benchmarks/peers.py [--rounds 15] [--int8] [--no-compile] [--bundles DIR] [MODEL ...]

Models have the keys, frames and lengths of the recipes MODEL-mmnist, as the papers have them, and
fresh weights, on which time does not depend; batch 1. All ways of a model take turns in one process
(`stpl-deploy bench --compile --peers`): PyTorch eager and compiled, ONNX Runtime, OpenVINO in fp32,
in bf16 where the processor has it, and the int8 bundle on both engines with `--int8`, whose export
calibrates for minutes. Every engine's bundle is verified first, on one sequence. Named models
replace only their own rows. `--bundles` keeps the exported bundles there, and takes those that are
there; with `--rounds 0` it only exports. A trained run of the same keys at DIR/MODEL/run is taken,
too: what bf16 costs in accuracy depends on the weights, and a way that breaks its promise is left
out. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch

from stpl_core.bundle import Bundle, open_bundle
from stpl_core.errors import AccuracyError, StplError
from stpl_core.files import atomic_file
from stpl_core.machine import describe
from stpl_deploy.cli.reports.output import document_text, print_table, say
from stpl_export.bench import Peer, bench_bundle, peers_of
from stpl_export.export import export_run
from stpl_runtime.engine import open_session, precision_of
from stpl_runtime.engines.auto.candidates import installed_engines
from stpl_runtime.proof.reference import load_reference
from stpl_runtime.proof.verify import breach_of, check_session
from stpl_train import run as runs
from stpl_train.data.stand_in import stand_in_sequences
from stpl_train.models import MODELS, build_model
from stpl_train.recipe import load_recipe, parse_recipe

RESULT = Path(__file__).parent / "results" / "peers.json"


def paper_run(path: Path, name: str) -> Path:
    """A run of the model at its paper's size: fresh weights, moving digits."""
    recipe = load_recipe(f"{name}-mmnist")
    data = recipe.data
    frame = (1, 64, 64)
    section = {
        "source": "synthetic", "frame": frame, "context": data.context, "horizon": data.horizon,
    }  # fmt: skip
    model = {"name": name, **recipe.model.keys}
    small = parse_recipe({"model": model, "data": section, "training": {"iterations": 1}})
    path.mkdir()
    runs.save_recipe(path, small)
    weights = build_model(name, frame, small.model.keys).state_dict()
    safetensors.torch.save_file(weights, path / runs.WEIGHTS)
    runs.save_validation(path, stand_in_sequences(frame, data.context + data.horizon, 2))
    return path


def breach(peer: Peer) -> str | None:
    """What the bundle's own verification finds wrong of a way, on one sequence."""
    session = open_session(
        peer.bundle, ("step", "forecast", "rollout"), engine=peer.engine, allow=peer.allow
    )
    try:
        precision = precision_of(session, peer.bundle.manifest)
        reference = load_reference(peer.bundle)
        graphs = tuple(peer.bundle.manifest.graphs)
        checks = check_session(session, graphs, reference, precision, [1])
        return next((wrong for check in checks if (wrong := breach_of(check))), None)
    finally:
        session.close()


def exported(run: Path, to: Path, precision: str) -> Bundle:
    """The bundle of a run, exported once."""
    if to.exists():
        return open_bundle(to)
    return export_run(run, to, precision=precision, keep_slower=True)


def int8_peers(run: Path, folder: Path, engines: set[str]) -> list[Peer]:
    """The int8 bundle on each engine; none where it breaks its promises."""
    try:
        bundle = exported(run, folder / "int8", "int8")
    except AccuracyError as error:
        say(f"no int8: {error}")
        return []
    return [Peer(f"{engine}-int8", bundle, engine) for engine in sorted(engines)]


def measure(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One model's rows."""
    say(f"{name}: exporting")
    run = folder / "run"
    if not run.exists():
        paper_run(run, name)
    bundle = exported(run, folder / "fp32", "fp32")
    peers = [Peer("onnx", bundle, "onnx"), *peers_of(bundle, "onnx")]
    if options.int8:
        able = {peer.engine for peer in peers}.intersection(installed_engines("int8"))
        peers += int8_peers(run, folder, able)
    if not options.rounds:
        return {}
    wrong = {}
    for peer in list(peers):
        try:
            found = breach(peer)
        except StplError as error:
            found = error.found
        if found is not None:
            wrong[peer.label] = found
            peers.remove(peer)
            say(f"{name}: {peer.label} is left out: {found}")
    report = bench_bundle(
        bundle,
        rounds=options.rounds,
        engine="onnx",
        compiled=options.compiled,
        peers=[peer for peer in peers if peer.label != "onnx"],
    )
    weights = "trained" if (run / runs.TRAINING).exists() else "fresh"
    return {"name": name, "weights": weights, **report.document(), "left_out": wrong}


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--no-compile", dest="compiled", action="store_false")
    parser.add_argument("--bundles", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = json.loads(options.out.read_text())["models"] if options.out.is_file() else []
    known = {row["name"]: row for row in rows}
    for name in options.model:
        with tempfile.TemporaryDirectory() as passing:
            folder = Path(passing) if options.bundles is None else options.bundles / name
            folder.mkdir(parents=True, exist_ok=True)
            made = measure(name, folder, options)
        if not options.rounds:
            continue
        known[name] = made
        _print(made)
        ordered = [known[one] for one in MODELS if one in known]
        with atomic_file(options.out) as file:
            file.write(document_text({"models": ordered, "machine": describe()}).encode())
    return 0


def _print(made: dict[str, Any]) -> None:
    print_table(
        f"{made['model']}, {made['context']} in, {made['horizon']} out, {made['threads']} threads",
        ["arrival to nowcast", "median ms", "GFLOP/s", "of peak"],
        [
            [
                row["name"],
                f"{row['median_ms']:.1f}",
                f"{row['gflops']:.1f}",
                "" if row["peak_share"] is None else f"{row['peak_share']:.0%}",
            ]
            for row in made["rows"]
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
