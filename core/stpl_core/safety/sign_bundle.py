"""Signing a bundle; `signing` checks what is signed here."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

from stpl_core.bundle import MANIFEST, open_bundle
from stpl_core.files import atomic_file
from stpl_core.safety.signing import SIGNATURE, Statement, fingerprint, private_key, refuse_added


def sign_bundle(
    bundle: Path, key: Path, *, version: int | None = None, days: float | None = None
) -> Statement:
    """Sign a bundle that was opened and checked; a signature that is there is replaced.

    Args:
        bundle: its directory.
        key: a private key, PEM.
        version: of this release, greater than that of the one before; None: the time in seconds.
        days: after which the signature no longer holds; None: it always does.

    Raises:
        UsageError: no such key, or a bundle that holds what its manifest does not name.
        MissingExtraError: cryptography is not installed.
    """
    private = private_key(key)
    refuse_added(bundle, [*open_bundle(bundle).manifest.files, MANIFEST])
    now = datetime.now(timezone.utc).replace(microsecond=0)
    statement = Statement(
        schema_version=1,
        key=fingerprint(private.public_key()),
        version=int(now.timestamp()) if version is None else version,
        signed=now,
        expires=None if days is None else now + timedelta(days=days),
        manifest_sha256=hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest(),
    )
    signature = base64.b64encode(private.sign(statement.message)).decode()
    document = {**statement.model_dump(mode="json"), "signature": signature}
    with atomic_file(bundle / SIGNATURE) as file:
        file.write((json.dumps(document, indent=2) + "\n").encode())
    return statement
