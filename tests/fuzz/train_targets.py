"""What training reads: runs, recipes, parts of directories, checkpoints of other projects."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

from tests.fuzz import formats
from tests.fuzz.attempts import RUN, SHARED, TINY, Attempt, outcome, verb
from tests.fuzz.mutate import damaged, mutated, mutated_npz


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
                return verb([*words, "--threads", "1"])
            return verb(["inspect", str(folder / "run")])
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
        return outcome(lambda: load_recipe(str(path)))

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
        found = outcome(lambda: join(folder / "parts", folder / "joined"))
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
        return outcome(lambda: read_container(path))

    return attempt
