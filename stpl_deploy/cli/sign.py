"""`stpl-deploy sign`: a bundle that shows who made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from stpl_core.errors import UsageError
from stpl_core.option import Option
from stpl_deploy.cli.options.signature import verb


@dataclass(frozen=True)
class SignCommand:
    """The options of `sign`."""

    bundle: Annotated[Path | None, Option("Bundle directory.", argument=True)] = None
    key: Annotated[Path | None, Option("Private key, PEM, that signs.")] = None
    new_key: Annotated[
        Path | None, Option("Make a private key here, and its public key beside it, KEY.pub.")
    ] = None
    version: Annotated[
        int | None,
        Option("Of this release, greater than the last.", default="the time in seconds", least=0),
    ] = None
    days: Annotated[
        float | None, Option("Days for which the signature holds.", default="for ever")
    ] = None


@verb
def sign(options: SignCommand) -> None:
    """Sign a bundle with an Ed25519 key, so that machines open only what you signed."""
    from stpl_core.safety.sign_bundle import sign_bundle
    from stpl_core.safety.signing import new_key

    if options.new_key is not None:
        public = new_key(options.new_key)
        print(f"{options.new_key}: keep it to yourself")
        print(f"{public}: goes to the machines, for --trusted-keys")
        if options.bundle is None:
            print(f"next: stpl-deploy sign BUNDLE --key {options.new_key}")
            return
    key = options.key or options.new_key
    if options.bundle is None or key is None:
        raise UsageError(
            "no BUNDLE or no --key",
            expected="a bundle and a private key",
            fix="stpl-deploy sign BUNDLE --key KEY; stpl-deploy sign --new-key KEY makes one",
        )
    statement = sign_bundle(options.bundle, key, version=options.version, days=options.days)
    print(signed_line(options.bundle, statement.key, statement.version))
    print(f"next: stpl-deploy verify {options.bundle} --trusted-keys KEYS")


def signed_line(bundle: Path, key: str, version: int) -> str:
    """What was signed, in a line."""
    return f"{bundle}: signed by the key {key[:16]}…, version {version}"
