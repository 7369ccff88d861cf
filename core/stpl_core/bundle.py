"""The bundle: the one thing that is deployed. Its manifest, how it is written and how it is opened.

BUNDLE/
  manifest.json          everything below, described; schema-versioned, with its own checksum
  weights.safetensors    the model's tensors; every graph's external data lies in it
  weights-fp16.safetensors   half copies of what convolutions read, in bundles of that precision
  weights-int8.safetensors   8-bit copies of it with their scales, in bundles of that precision
  step.onnx              (frame, state) -> (next frame, state)
  forecast.onnx          (newest frame, state) -> (K frames, the state after that frame)
  rollout.onnx           T frames -> K frames
  *.engine               raw bytes of a builder, where one was asked for
  reference.npz          real sequences with PyTorch's own outputs: lets any device prove itself
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pydantic

from stpl_core.errors import BundleError, ChecksumError
from stpl_core.files import atomic_directory, atomic_file, sha256_of
from stpl_core.manifest import (
    SCHEMA_VERSION as SCHEMA_VERSION,
)
from stpl_core.manifest import (
    AccuracyReport as AccuracyReport,
)
from stpl_core.manifest import (
    EngineSpec as EngineSpec,
)
from stpl_core.manifest import (
    FileSpec as FileSpec,
)
from stpl_core.manifest import (
    GraphAccuracy as GraphAccuracy,
)
from stpl_core.manifest import (
    GraphName as GraphName,
)
from stpl_core.manifest import (
    GraphSpec as GraphSpec,
)
from stpl_core.manifest import (
    Int8Accuracy as Int8Accuracy,
)
from stpl_core.manifest import (
    Int8Facts as Int8Facts,
)
from stpl_core.manifest import (
    LeadAccuracy as LeadAccuracy,
)
from stpl_core.manifest import (
    Manifest as Manifest,
)
from stpl_core.manifest import (
    ModelInfo as ModelInfo,
)
from stpl_core.manifest import (
    OutputSpec as OutputSpec,
)
from stpl_core.manifest import (
    Speed as Speed,
)
from stpl_core.manifest import (
    StateSpec as StateSpec,
)
from stpl_core.safety.manifest_checks import problems
from stpl_core.safety.printable import printable
from stpl_core.safety.signing import SIGNATURE, TrustedKeys, check_files, check_signature

_log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 16 * 2**20
WEIGHTS = "weights.safetensors"
_LENGTH_BYTES = 8
LOW_WEIGHTS = "weights-{precision}.safetensors"
REFERENCE = "reference.npz"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its directory and its manifest."""

    path: Path
    manifest: Manifest
    version: int | None = None
    """That its signer states; None where no signature was asked for."""

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files."""
        return self.path / name

    def content(self, name: str) -> bytes:
        """One of the bundle's files, read once: what was checked is what is used.

        Raises:
            ChecksumError: it is missing, a link, or has other bytes than the manifest states.
        """
        spec, file = self.manifest.files.get(name), self.path / name
        if spec is None or file.is_symlink() or not file.is_file():
            raise ChecksumError(f"{file}: no file", expected="a file of the bundle", fix=_AGAIN)
        content = file.read_bytes() if file.stat().st_size == spec.bytes else b""
        found = hashlib.sha256(content).hexdigest()
        if found != spec.sha256:
            raise ChecksumError(
                f"{file} has SHA-256 {found[:12]}…", expected=f"{spec.sha256[:12]}…", fix=_AGAIN
            )
        return content

    def graph(self, name: GraphName) -> Path:
        """Path of a graph.

        Raises:
            BundleError: the bundle has no such graph.
        """
        if name not in self.manifest.graphs:
            raise BundleError(
                f"{self.path} has no {name} graph",
                expected=f"one of {', '.join(self.manifest.graphs)}",
                fix="stpl-deploy export RUN --out BUNDLE",
            )
        return self.path / self.manifest.graphs[name].file


_UNSIGNED = "0" * 64
_SIGNATURE = re.compile(rb'"manifest_sha256": "([0-9a-f]{64})"\n}\n\Z')


def manifest_text(manifest: Manifest) -> str:
    """The manifest as JSON, its last key a checksum of the text in which that key is all zeros."""
    document = {**manifest.model_dump(mode="json"), "manifest_sha256": _UNSIGNED}
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    head, _, tail = text.rpartition(_UNSIGNED)
    return head + hashlib.sha256(text.encode()).hexdigest() + tail


def _is_signed(content: bytes) -> bool:
    """Whether a manifest's bytes are those that `manifest_text` gave."""
    found = _SIGNATURE.search(content)
    if found is None:
        return False
    unsigned = content[: found.start(1)] + _UNSIGNED.encode() + content[found.end(1) :]
    return hashlib.sha256(unsigned).hexdigest() == found[1].decode()


@contextmanager
def writing_bundle(out: Path) -> Iterator[Path]:
    """Give a directory to fill; it becomes `out` when the block ends well (see `seal`)."""
    with atomic_directory(out) as partial:
        yield partial
        if not (partial / MANIFEST).is_file():
            raise BundleError(
                f"{out} was not sealed", expected="seal(directory, manifest)", fix="report it"
            )


def seal(directory: Path, manifest: Manifest) -> Bundle:
    """Checksum every file in `directory` and write the manifest last."""
    files = {
        path.relative_to(directory).as_posix(): FileSpec(
            bytes=path.stat().st_size, sha256=sha256_of(path)
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path not in (directory / MANIFEST, directory / SIGNATURE)
    }
    sealed = manifest.model_copy(update={"files": files})
    with atomic_file(directory / MANIFEST) as file:
        file.write(manifest_text(sealed).encode())
    return Bundle(directory, sealed)


def open_bundle(
    path: Path, *, checksums: bool = True, trusted: TrustedKeys | None = None
) -> Bundle:
    """Open a bundle and check that its bytes are those that were written.

    Files that the manifest does not name are ignored (a backend may leave its cache there).

    Args:
        path: the bundle's directory.
        checksums: False skips reading every file; sizes are checked all the same.
        trusted: open it only where one of these keys signed it; None: signed or not.

    Raises:
        BundleError: missing, not a bundle, or of a newer schema.
        ChecksumError: a file is missing, has another size or other bytes.
        SignatureError: none of the trusted keys signed it as it is.
    """
    content = _manifest_bytes(path)
    version = None
    if trusted is not None:
        version = check_signature(path, content, trusted).version
    manifest = _parsed(path / MANIFEST, content)
    if trusted is not None:
        check_files(path, [*manifest.files, MANIFEST])
    _check_names(path, manifest)
    for name, spec in manifest.files.items():
        file = path / name
        if _has_link(path, name):
            raise BundleError(
                f"{file} is a link, or lies behind one",
                expected="a file of its own",
                fix=f"cp -rL {path} COPY makes files of links, if you know where they lead",
            )
        if not file.is_file() or file.stat().st_size != spec.bytes:
            size = f"{file.stat().st_size} bytes" if file.is_file() else "no file"
            raise ChecksumError(f"{file}: {size}", expected=f"{spec.bytes} bytes", fix=_AGAIN)
        if checksums and (found := sha256_of(file)) != spec.sha256:
            raise ChecksumError(
                f"{file} has SHA-256 {found[:12]}…", expected=f"{spec.sha256[:12]}…", fix=_AGAIN
            )
        if name.endswith(".safetensors"):
            _check_header(file, spec.bytes)
    return Bundle(path, manifest, version)


def _check_header(weights: Path, size: int) -> None:
    """The header of safetensors, whose length comes first, lies in the file.

    Engines pass over it by the offsets of their graphs; what reads tensors by name does not.
    """
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
        raise BundleError(
            f"{weights} states a header of {length:,} bytes",
            expected=f"one that its {size:,} bytes hold",
            fix="do not use it: no export wrote this",
        )


def _has_link(path: Path, name: str) -> bool:
    """Whether a file of a bundle, or a folder in it on the way, is a link."""
    inside = [PurePosixPath(name), *PurePosixPath(name).parents][:-1]
    return any((path / part).is_symlink() for part in inside)


def _check_names(path: Path, manifest: Manifest) -> None:
    """Every graph and engine must be among the checksummed files, and those inside the bundle."""
    for problem in problems(manifest):
        raise BundleError(
            f"{path / MANIFEST}: {printable(problem)}",
            expected="what an export writes",
            fix="do not use it, if it was not damaged on the way: no export wrote this",
        )
    graphs = [graph.file for graph in manifest.graphs.values()]
    for name in (*manifest.files, *graphs, *(engine.file for engine in manifest.engines)):
        inside = not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
        if name not in manifest.files or not inside:
            raise BundleError(
                f"{path / MANIFEST} names {printable(name)}",
                expected="a file of the bundle, with its checksum",
                fix=_AGAIN,
            )


_AGAIN = "copy the bundle again, or export the run again"


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys stand there once: of two, programs take different ones."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _manifest_bytes(path: Path) -> bytes:
    file = path / MANIFEST
    if not file.is_file():
        is_run = (path / "recipe.toml").is_file()
        found = f"{path} is {'a run directory' if is_run else 'not a bundle'}"
        if pretrained := str(path).startswith("pretrained:"):
            found = f"{path} is a trained model, which is not exported yet"
        elif not path.is_dir():
            found = f"no directory {path}"
        name = path.name.removeprefix("pretrained:")
        raise BundleError(
            found,
            expected=f"a directory with {MANIFEST}",
            fix=f"stpl-deploy export {path} --out {name}.bundle"
            if is_run or pretrained
            else "stpl-deploy export RUN --out BUNDLE",
        )
    if file.stat().st_size > _LARGEST_MANIFEST:
        raise BundleError(
            f"{file} has {file.stat().st_size:,} bytes",
            expected=f"at most {_LARGEST_MANIFEST:,}",
            fix="do not use it: no export wrote this",
        )
    return file.read_bytes()


def _parsed(file: Path, content: bytes) -> Manifest:
    try:
        document = json.loads(content, parse_constant=_no_number, object_pairs_hook=_once)
        version = document["schema_version"]
        document.pop("manifest_sha256", None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ChecksumError(
            f"{file} is damaged: {error}", expected="complete JSON", fix=_AGAIN
        ) from error
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{file} has schema version {version}",
            expected=f"{SCHEMA_VERSION} or older",
            fix="pip install --upgrade stpl-deploy",
        )
    if not _is_signed(content):
        raise ChecksumError(
            f"{file} was changed after export",
            expected="the checksum that its manifest states",
            fix=_AGAIN,
        )
    try:
        return _validated(file, document)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise BundleError(
            f"{file}: {printable(key)}: {printable(first['msg'])}",
            expected="a manifest",
            fix=_AGAIN,
        ) from error


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def _validated(file: Path, document: dict[str, Any]) -> Manifest:
    """A manifest without the fields that a later version of this schema added.

    Those of the codec are refused: what they change would be changed in every value.

    Raises:
        BundleError: the codec has one.
        pydantic.ValidationError: what is known does not hold.
    """
    try:
        return Manifest.model_validate(document)
    except pydantic.ValidationError as error:
        unknown = [one["loc"] for one in error.errors() if one["type"] in _UNKNOWN]
        if not unknown:
            raise
    names = ", ".join(printable(".".join(map(str, where))) for where in unknown)
    if any(where[0] == "codec" for where in unknown):
        raise BundleError(
            f"{file} has {names}, which this version does not know",
            expected="a codec that it knows: it changes every value",
            fix="pip install --upgrade stpl-deploy",
        )
    for *inside, name in unknown:
        part: Any = document
        for key in inside:
            part = part[key]
        part.pop(name, None)
    _log.warning("%s: %s not known to this version, and ignored", file, names)
    return Manifest.model_validate(document)
