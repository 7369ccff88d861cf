"""Bundles, their graphs and references, and state files: changed, opened, run."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from stpl_core.manifest import GraphName
from tests.fuzz import formats
from tests.fuzz.attempts import TINY, Attempt, outcome, verb
from tests.fuzz.mutate import damaged, manifest_bytes, mutated, mutated_npz


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
        if outcome(partial(open_bundle, bundle)) == "refused":
            return "refused"
        verb(["inspect", str(bundle), *(["--json"] if seed % 2 else [])])
        return verb(predict)

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
            outcome(lambda: plan_memory(open_bundle(bundle), "onnx", None))  # before it is judged
            if outcome(lambda: check_graphs(open_bundle(bundle), [name])) == "refused":
                return "refused"
            return outcome(partial(_run_graph, open_session, open_bundle(bundle), name))
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
        return verb(["verify", str(bundle), "--threads", "1"])

    return attempt


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

        found = outcome(use)
        assert all(line.isprintable() for line in lines), lines
        return found

    return attempt
