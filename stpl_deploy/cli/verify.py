"""`stpl-deploy verify`: a bundle proves itself on this machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from stpl_core.errors import AccuracyError, UsageError
from stpl_core.files import refuse_existing
from stpl_core.option import Option
from stpl_core.options import BundlePath, ProofOptions
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.signature import verb
from stpl_deploy.cli.options.trust import TrustOptions, open_trusted

if TYPE_CHECKING:
    from stpl_core.bundle import AccuracyReport, Bundle


@dataclass(frozen=True)
class VerifyCommand:
    """The options of `verify`."""

    bundle: BundlePath
    backend: ProofOptions = field(default_factory=ProofOptions)
    bisect: Annotated[
        bool,
        Option(
            "On a breach in half precision: search the operation (needs [export]).",
            flag="--bisect/--no-bisect",
        ),
    ] = False
    case: Annotated[
        Path | None,
        Option("With --bisect: what breaks, for polygraphy debug reduce.", metavar="DIR"),
    ] = None
    against: Annotated[
        str,
        Option(
            "Compare these engines too, with commas: onnx,trt-rtx; or results of another machine.",
            metavar="ENGINES|FILE",
        ),
    ] = ""
    results: Annotated[
        Path | None, Option("With --against: keep all outputs here, JSON for Polygraphy.")
    ] = None
    triton: Annotated[
        str | None,
        Option(
            "Prove the model that this server serves: as --engine triton:URL.",
            metavar="URL",
        ),
    ] = None
    isolated: Annotated[
        bool,
        Option("Run its graphs in a process of their own, with limits.", flag="--isolated"),
    ] = False
    trust: TrustOptions = field(default_factory=TrustOptions)
    json: Json = False


@verb
def verify(options: VerifyCommand) -> None:
    """Check a bundle's bytes and its closed-loop accuracy on this machine, without PyTorch."""
    from stpl_deploy.cli.reports.output import print_accuracy, print_json, say
    from stpl_runtime.engine import TRITON
    from stpl_runtime.proof.verify import first_breach, verify_bundle

    bundle = options.bundle
    _check(options)
    opened = open_trusted(bundle, options.trust)
    if options.isolated:
        from stpl_deploy.cli.options.isolated import run_isolated

        run_isolated(sys.argv[1:])
        return
    if options.against:
        from stpl_deploy.cli.reports.against import compare

        compare(opened, options.backend, options.against, options.results, options.json)
        return
    backend = options.backend
    if options.triton is not None:
        backend = replace(backend, engine=f"{TRITON}{options.triton}")
    report = verify_bundle(opened, **vars(backend), progress=say)
    if options.json:
        print_json({"passed": report.passed, **report.model_dump(mode="json")})
    else:
        print_accuracy(report)
        if report.passed:
            print(f"{bundle}: checksums match; accuracy within tolerance on {_run(report)}")
            for line in _not_run(opened, report):
                print(line)
            print(f"next: stpl-deploy stream {bundle} SOURCE --sink png:out")
    breach = first_breach(report)
    if breach is not None:
        raise AccuracyError(
            breach,
            expected="PyTorch's results within the tolerance",
            fix=_culprits(opened, options.case)
            if options.bisect
            else "do not use this bundle on this machine; stpl-deploy doctor",
        )


def _run(report: AccuracyReport) -> str:
    """What was run, in words: each engine with its provider."""
    ways = dict.fromkeys((check.engine, check.provider) for check in report.checks)
    return ", ".join(f"{engine} ({provider})" for engine, provider in ways)


def _not_run(bundle: Bundle, report: AccuracyReport) -> list[str]:
    """A line for each engine of the bundle that nothing was proved of."""
    ran = {check.engine for check in report.checks}
    files: dict[str, list[str]] = {}
    for spec in bundle.manifest.engines:
        if spec.engine not in ran:
            files.setdefault(spec.engine, []).append(spec.file)
    return [
        f"not run: {', '.join(names)}: only its bytes were compared; "
        f"try: stpl-deploy verify {bundle.path} --engine {engine}, where its GPU is"
        for engine, names in files.items()
    ]


def _check(options: VerifyCommand) -> None:
    """Refuse options that would do nothing beside the others, and a folder that is there."""
    for idle, missing in (
        (options.case is not None and not options.bisect, "--case without --bisect"),
        (options.results is not None and not options.against, "--results without --against"),
    ):
        if idle:
            raise UsageError(missing, expected="both", fix=f"add {missing.rpartition(' ')[2]}")
    for first, second in (("bisect", "against"), ("triton", "against"), ("triton", "bisect")):
        if getattr(options, first) and getattr(options, second):
            raise UsageError(
                f"--{first} with --{second}, which does not hear it",
                expected="one of them",
                fix=f"leave --{second} out",
            )
    if options.triton is not None and options.backend.engine != ProofOptions().engine:
        raise UsageError(
            f"--triton {options.triton} with --engine {options.backend.engine}",
            expected="one of them: --triton URL is --engine triton:URL",
            fix="leave one of them out",
        )
    if options.case is not None:
        refuse_existing(options.case, "--case")


def _culprits(bundle: Bundle, case: Path | None) -> str:
    """Search what breaks in half precision, keep it as a case, and say what to type."""
    precision = bundle.manifest.precision
    if precision not in ("fp16", "bf16"):
        return (
            f"leave --bisect out: it searches what half precision breaks, and this is {precision}"
        )
    from stpl_deploy.cli.reports.output import say
    from stpl_deploy.extras import needs

    with needs("export"):
        from stpl_export.precision.bisect import bisect_bundle
    found = bisect_bundle(bundle, progress=say)
    if found.first is None:
        return "another device or driver: with rounding emulated on this CPU the graph passes"
    say(
        f"first to break, rounding emulated on this CPU: {found.first} ({found.kinds[found.first]})"
    )
    if case is not None:
        with needs("polygraphy"):
            from stpl_export.polygraphy.reduce_case import write_reduce_case
        write_reduce_case(bundle, found.first, case)
        say(f"{case}/README.md: the commands that show it, for polygraphy")
    if not found.passes:
        return "export with --precision fp32: no few operations are to blame"
    kept = " ".join(f"--keep-fp32 {name}" for name in found.keep)
    return f"export with --precision {precision} {kept}"
