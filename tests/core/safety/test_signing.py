"""Signed bundles: twelve attacks and more, all refused; the honest bundle opens."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from stpl_core.bundle import MANIFEST, Manifest, manifest_text, open_bundle, seal
from stpl_core.errors import StplError, UsageError
from stpl_core.safety import signing
from stpl_core.safety.sign_bundle import sign_bundle
from stpl_core.safety.signing import (
    SIGNATURE,
    SignatureError,
    new_key,
    trusted_keys,
)

TINY = Path(__file__).parents[2] / "data" / "convlstm-tiny.bundle"


@dataclass(frozen=True)
class Scene:
    """A signed bundle, the signer's key, the folder of trusted keys, and a place for others."""

    bundle: Path
    key: Path
    trusted: Path
    room: Path

    def opened(self, min_version: int = 0) -> Manifest:
        return open_bundle(self.bundle, trusted=trusted_keys(self.trusted, min_version)).manifest


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    bundle = Path(shutil.copytree(TINY, tmp_path / "nowcast.bundle"))
    key = tmp_path / "keys" / "signer"
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    shutil.copy(new_key(key), trusted / "service.pub")
    sign_bundle(bundle, key, version=7)
    return Scene(bundle, key, trusted, tmp_path)


def test_what_a_trusted_key_signed_is_opened(scene: Scene) -> None:
    assert scene.opened(min_version=7).horizon == 3
    assert open_bundle(scene.bundle).manifest.horizon == 3  # no key asked for: as ever
    seal(scene.bundle, scene.opened())  # a signature is no file of the manifest
    assert SIGNATURE not in open_bundle(scene.bundle).manifest.files


def changed_byte(scene: Scene) -> None:
    path = scene.bundle / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def swapped_weights(scene: Scene) -> None:
    """Another model's, every checksum of the manifest made right."""
    path = scene.bundle / "weights.safetensors"
    path.write_bytes(path.read_bytes()[::-1])
    seal(scene.bundle, open_bundle(TINY).manifest)


def other_signature(scene: Scene) -> None:
    other = Path(shutil.copytree(TINY, scene.room / "other.bundle"))
    seal(other, open_bundle(TINY).manifest.model_copy(update={"created": "2020-01-01T00:00:00Z"}))
    sign_bundle(other, scene.key, version=9)
    shutil.copy(other / SIGNATURE, scene.bundle / SIGNATURE)


def stripped(scene: Scene) -> None:
    (scene.bundle / SIGNATURE).unlink()


def old_version(scene: Scene) -> None:
    sign_bundle(scene.bundle, scene.key, version=6)


def raised_version(scene: Scene) -> None:
    """The version in the text, without the key."""
    path = scene.bundle / SIGNATURE
    path.write_text(path.read_text().replace('"version": 7', '"version": 8'))


def wrong_key(scene: Scene) -> None:
    new_key(scene.room / "stranger")
    sign_bundle(scene.bundle, scene.room / "stranger", version=7)


def borrowed_name(scene: Scene) -> None:
    """A stranger's signature under the trusted key's fingerprint."""
    honest = json.loads((scene.bundle / SIGNATURE).read_text())["key"]
    wrong_key(scene)
    path = scene.bundle / SIGNATURE
    path.write_text(json.dumps({**json.loads(path.read_text()), "key": honest}))


def expired(scene: Scene) -> None:
    sign_bundle(scene.bundle, scene.key, version=7, days=-1)


def two_manifests(scene: Scene) -> None:
    shutil.copy(scene.bundle / MANIFEST, scene.bundle / "manifest (1).json")


def doubled_keys(scene: Scene) -> None:
    """A manifest of which two programs read two things."""
    path = scene.bundle / MANIFEST
    path.write_text(path.read_text().replace('"context":', '"context": 1, "context":', 1))


def link(scene: Scene) -> None:
    path = scene.bundle / "weights.safetensors"
    path.rename(scene.room / "elsewhere")
    path.symlink_to(scene.room / "elsewhere")


def linked_signature(scene: Scene) -> None:
    path = scene.bundle / SIGNATURE
    path.rename(scene.room / "elsewhere")
    path.symlink_to(scene.room / "elsewhere")


def added_file(scene: Scene) -> None:
    (scene.bundle / "cache").mkdir()
    (scene.bundle / "cache" / "plan.engine").write_bytes(b"a plan")


def renamed_file(scene: Scene) -> None:
    (scene.bundle / "weights.safetensors").rename(scene.bundle / "weights2.safetensors")


def capitals(scene: Scene) -> None:
    (scene.bundle / "step.onnx").rename(scene.bundle / "STEP.onnx")


def exchanged_graphs(scene: Scene) -> None:
    step, forecast = scene.bundle / "step.onnx", scene.bundle / "forecast.onnx"
    content = step.read_bytes()
    step.write_bytes(forecast.read_bytes())
    forecast.write_bytes(content)


def no_json(scene: Scene) -> None:
    (scene.bundle / SIGNATURE).write_text("[" * 50_000)


def emptied(scene: Scene) -> None:
    path = scene.bundle / SIGNATURE
    path.write_text(json.dumps({**json.loads(path.read_text()), "signature": ""}))


ATTACKS: list[Callable[[Scene], None]] = [
    changed_byte, swapped_weights, other_signature, stripped, old_version, wrong_key, expired,
    two_manifests, link, added_file, renamed_file, capitals,
    raised_version, borrowed_name, doubled_keys, linked_signature, exchanged_graphs, no_json,
    emptied,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused(scene: Scene, attack: Callable[[Scene], None]) -> None:
    attack(scene)
    with pytest.raises(StplError) as caught:
        scene.opened(min_version=7)
    assert caught.value.exit_code in (2, 3)
    assert str(caught.value).isprintable()


def test_every_flipped_bit_of_a_signature_is_refused(scene: Scene) -> None:
    path = scene.bundle / SIGNATURE
    whole = path.read_bytes()
    before = json.loads(whole)
    keys = trusted_keys(scene.trusted)
    manifest = (scene.bundle / MANIFEST).read_bytes()
    for place in range(len(whole)):
        changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        path.write_bytes(changed)
        try:
            signing.check_signature(scene.bundle, manifest, keys)
        except SignatureError:
            continue
        assert json.loads(changed) == before, place  # a blank between its words


def test_aprivate_key_is_its_owners(scene: Scene) -> None:
    assert stat.S_IMODE(os.stat(scene.key).st_mode) == 0o600
    with pytest.raises(UsageError, match="already exists"):
        new_key(scene.key)


def test_a_signature_may_end_later(scene: Scene) -> None:
    statement = sign_bundle(scene.bundle, scene.key, version=8, days=1)
    assert statement.expires is not None
    assert statement.expires > datetime.now(timezone.utc) + timedelta(hours=23)
    scene.opened(min_version=8)


def test_keys_of_openssl(scene: Scene) -> None:
    """A pair that another program made."""
    import subprocess

    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl")
    key, public = scene.room / "o.pem", scene.trusted / "o.pem"
    subprocess.run([openssl, "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run([openssl, "pkey", "-in", key, "-pubout", "-out", public], check=True)
    sign_bundle(scene.bundle, key, version=1)
    scene.opened()


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\n"])
def test_what_is_no_key(scene: Scene, content: bytes) -> None:
    (scene.trusted / "a.pem").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.pem"):
        trusted_keys(scene.trusted)
    with pytest.raises(UsageError, match="private key"):
        sign_bundle(scene.bundle, scene.trusted / "a.pem", version=1)


def test_a_folder_without_keys_trusts_nobody(scene: Scene) -> None:
    (scene.room / "none").mkdir()
    with pytest.raises(UsageError, match="holds no public key"):
        trusted_keys(scene.room / "none")


def test_more_than_the_manifest_names_is_not_signed(scene: Scene) -> None:
    added_file(scene)
    with pytest.raises(UsageError, match="does not name"):
        sign_bundle(scene.bundle, scene.key, version=9)
    assert manifest_text(open_bundle(scene.bundle).manifest)
