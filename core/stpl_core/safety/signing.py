"""Signed bundles: who made it, and that it is no older one.

    BUNDLE/manifest.sig     JSON: the signer's key, a version, times, the SHA-256 of the manifest's
                            bytes, and an Ed25519 signature over all of these

The manifest states every file's SHA-256, so the signature covers them all. A signed bundle holds
nothing that it does not name. Keys are PEM files, as `openssl genpkey -algorithm ed25519` makes.

Ed25519 by `cryptography`, and no Sigstore: an edge device checks offline, against keys that its
operator put there, with one library.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from stpl_core.errors import BreachError, MissingExtraError, UsageError
from stpl_core.files import atomic_file
from stpl_core.safety.printable import printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURE = "manifest.sig"
_CONTEXT = b"stpl-deploy bundle signature 1\n"
"""Before what is signed: a signature made for another purpose never fits."""
_MOST_BYTES = 16_384
_SUFFIXES = (".pem", ".pub")


class SignatureError(BreachError):
    """A bundle that is not signed by a key that is trusted, or no longer, or not all of it."""


class Statement(BaseModel):
    """What a signer states of a bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(1, ge=1, le=1)
    key: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the public key's 32 bytes."""
    version: int = Field(ge=0, lt=2**63)
    """Of the model in use: each release has a greater one, so that an old one is noticed."""
    signed: AwareDatetime
    expires: AwareDatetime | None = None
    manifest_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the manifest's bytes as they lie on the disk."""

    @property
    def message(self) -> bytes:
        """The bytes that are signed: one form for one statement."""
        document = self.model_dump(mode="json")
        return _CONTEXT + json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class TrustedKeys:
    """Whose bundles are opened."""

    keys: tuple[Ed25519PublicKey, ...]
    where: str
    """What the user named."""
    min_version: int = 0
    """Older bundles are refused though they are signed."""
    remembered: bool = False
    """That version was opened here before; nobody named it."""


def new_key(path: Path) -> Path:
    """Make a private key, readable by its owner alone, and its public key `path`.pub beside it.

    Raises:
        UsageError: one of them is there already.
        MissingExtraError: cryptography is not installed.
    """
    serialization, ed25519 = _library()
    public = path.with_name(f"{path.name}.pub")
    for file in (path, public):
        if file.exists() or file.is_symlink():
            raise UsageError(
                f"{file} already exists", expected="a path that is free", fix="another path"
            )
    key = ed25519.Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as own:
        own.write(private)
    with atomic_file(public) as shared:
        shared.write(
            key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return public


def trusted_keys(path: Path, min_version: int = 0) -> TrustedKeys:
    """Read a public key, or every one (.pem, .pub) in a folder.

    Raises:
        UsageError: there is none, or a file that is none.
        MissingExtraError: cryptography is not installed.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    if not files or not all(file.is_file() for file in files):
        raise UsageError(
            f"{path} holds no public key",
            expected="a PEM file, or a folder of .pem or .pub files",
            fix="stpl-deploy sign --new-key KEY makes a pair; its .pub goes here",
        )
    return TrustedKeys(tuple(_public_key(file) for file in files), str(path), min_version)


def check_signature(bundle: Path, manifest: bytes, trusted: TrustedKeys) -> Statement:
    """Refuse a bundle that no trusted key signed as it is.

    Args:
        bundle: its directory.
        manifest: the bytes that were read, and that are used.
        trusted: whose signatures count, and from which version on.

    Raises:
        SignatureError: no signature, another's, an expired or an older one.
    """
    from cryptography.exceptions import InvalidSignature

    statement, signature = _read(bundle)
    key = next((key for key in trusted.keys if fingerprint(key) == statement.key), None)
    if key is None:
        raise SignatureError(
            f"{bundle} is signed by the key {statement.key[:16]}…",
            expected=f"a key in {trusted.where}",
            fix="ask who made it for their public key, by another way than the bundle came",
        )
    try:
        key.verify(signature, statement.message)
    except InvalidSignature:
        raise SignatureError(
            f"{bundle / SIGNATURE} is no signature of its key", expected="one", fix=_REFUSE
        ) from None
    if hashlib.sha256(manifest).hexdigest() != statement.manifest_sha256:
        raise SignatureError(
            f"{bundle} has another manifest than was signed", expected="that one", fix=_REFUSE
        )
    if statement.expires is not None and datetime.now(timezone.utc) >= statement.expires:
        raise SignatureError(
            f"the signature of {bundle} ended at {statement.expires:%Y-%m-%dT%H:%MZ}",
            expected="one that still holds",
            fix="get the newest bundle, or set this machine's clock",
        )
    if statement.version < trusted.min_version:
        raise SignatureError(
            f"{bundle} is version {statement.version}",
            expected=f"version {trusted.min_version} or newer"
            + (", which was opened here before" if trusted.remembered else ""),
            fix="get the newest bundle"
            + (
                f"; to go back on purpose, once: --min-version {statement.version}"
                if trusted.remembered
                else ""
            ),
        )
    return statement


def check_files(bundle: Path, files: Iterable[str]) -> None:
    """Refuse a signed bundle that holds more than was signed.

    Args:
        bundle: its directory.
        files: the names that the manifest states.

    Raises:
        SignatureError: it does.
    """
    try:
        refuse_added(bundle, files)
    except UsageError as error:
        raise SignatureError(error.found, expected=error.expected, fix=_REFUSE) from error


_REFUSE = "do not use it; get the bundle again from who made it"


def _read(bundle: Path) -> tuple[Statement, bytes]:
    path = bundle / SIGNATURE
    if path.is_symlink() or not path.is_file():
        raise SignatureError(
            f"{bundle} is not signed", expected=SIGNATURE, fix="stpl-deploy sign BUNDLE --key KEY"
        )
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too long")
        document: dict[str, Any] = json.loads(path.read_bytes())
        signature = base64.b64decode(document.pop("signature"), validate=True)
        return Statement.model_validate(document), signature
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise SignatureError(
            f"{path} cannot be read: {printable(reason)}", expected="a signature", fix=_REFUSE
        ) from error


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtraError("cryptography", "sign") from error
    return serialization, ed25519


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key, hexadecimal."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key, PEM.

    Raises:
        UsageError: there is none.
        MissingExtraError: cryptography is not installed.
    """
    serialization, ed25519 = _library()
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {printable(error.strerror or error)}",
            expected="a private key, as a PEM file without a password",
            fix="check the path; stpl-deploy sign --new-key KEY makes a key",
        ) from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{path} is not a private key, or it has a password",
            expected="a PEM file without a password",
            fix="stpl-deploy sign --new-key KEY makes one",
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{path} is another kind of key", expected="Ed25519", fix="--new-key KEY")
    return cast("Ed25519PrivateKey", key)


def _public_key(path: Path) -> Ed25519PublicKey:
    serialization, ed25519 = _library()
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read as a public key: {printable(error)}",
            expected="a PEM file",
            fix=f"openssl pkey -in KEY -pubout -out {path}",
        ) from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise UsageError(f"{path} is another kind of key", expected="Ed25519", fix="another file")
    return cast("Ed25519PublicKey", key)


def refuse_added(bundle: Path, files: Iterable[str]) -> None:
    """Refuse files and links in a bundle that are not among `files`.

    Raises:
        UsageError: there is one.
    """
    named = {*files, SIGNATURE}
    for folder, folders, names in os.walk(bundle):
        for name in (*folders, *names):
            path = Path(folder, name)
            inside = path.relative_to(bundle).as_posix()
            if path.is_symlink() or (inside not in named and not path.is_dir()):
                raise UsageError(
                    f"{bundle} holds {printable(inside)}, which its manifest does not name",
                    expected="only the files that were exported, and no links",
                    fix=f"remove {printable(path)}",
                )
