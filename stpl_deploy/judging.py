"""What `evaluate` was given, opened: a bundle on its engine, or a run in PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stpl_core.bundle import MANIFEST
from stpl_core.errors import RunError, UsageError
from stpl_core.options import SignatureOptions

if TYPE_CHECKING:
    from stpl_runtime.evaluation.subject import Backend, Judged


def open_judged(
    path: Path,
    *,
    backend: Backend | None = None,
    horizon: int | None = None,
    testing: bool = False,
    domain: tuple[int, int] | None = None,
    signature: SignatureOptions | None = None,
) -> Judged:
    """Open a run or a bundle.

    Args:
        path: its directory.
        backend: what a bundle runs on; a run always runs in PyTorch on the CPU.
        horizon: frames to predict; None: as it was trained.
        testing: without `horizon`, the recipe's `data.test_horizon`, where it has one.
        domain: (H, W) of larger frames, which a bundle covers in tiles, nothing cropped.
        signature: whose bundles are opened; None: anybody's.

    Raises:
        UsageError: a domain, an engine or trusted keys for a run.
        EnvironmentFault: this machine cannot run the engine, or another provider runs it than is
            required.
        RunError: neither a run nor a bundle, or a broken run.
        BundleError: a broken bundle.
        MissingExtraError: a run, and PyTorch is not installed.
    """
    from stpl_core.safety.open_signed import open_signed
    from stpl_runtime.evaluation.subject import Backend, judged_bundle

    backend = backend or Backend()
    if (path / MANIFEST).is_file():
        return judged_bundle(
            open_signed(path, signature or SignatureOptions()),
            backend=backend,
            horizon=horizon,
            testing=testing,
            domain=domain,
        )
    if signature is not None and signature.trusted_keys is not None:
        raise UsageError(
            f"{path} is not a bundle, and only bundles are signed",
            expected="a bundle",
            fix=f"stpl-deploy export {path} --out BUNDLE --sign KEY",
        )
    if not path.exists() and not str(path).startswith("pretrained:"):
        raise RunError(
            f"nothing is at {path}",
            expected="a run or a bundle",
            fix=f"check the path, or stpl-deploy export RUN --out {path}",
        )
    from stpl_deploy.extras import needs

    with needs("train"):
        from stpl_export.judging import judged_run
    return judged_run(path, backend=backend, horizon=horizon, testing=testing, domain=domain)
