"""GPUs by compute capability: which of them can share one TensorRT-RTX engine, which have none."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from stpl_core.errors import UsageError

PORTABLE = ("8.0", "8.6", "8.9", "12.0")
"""The default: what one engine serves, Ampere to Blackwell."""
ALONE = frozenset({"7.5"})
"""Turing cannot share an engine with later GPUs."""
_KNOWN = {
    "7.5": "Turing: RTX 20, T4",
    "8.0": "A100, A30",
    "8.6": "RTX 30, A10, A40",
    "8.7": "Jetson Orin",
    "8.9": "RTX 40, L4, L40",
    "9.0": "H100, H200",
    "10.0": "B100, B200",
    "11.0": "Jetson Thor",
    "12.0": "RTX 50, RTX PRO Blackwell",
    "12.1": "GB10",
}


def parse_capabilities(words: Sequence[str]) -> tuple[str, ...]:
    """Sort and check the words of `--gpu`, such as `["8.6", "12.0"]`.

    Raises:
        UsageError: a word is not a compute capability.
    """
    for word in words:
        major, dot, minor = word.partition(".")
        if not (dot and major.isdigit() and len(minor) == 1 and minor.isdigit()):
            raise UsageError(
                f"--gpu {word} is not a compute capability",
                expected="numbers such as 8.6 (RTX 30), 8.9 (RTX 40), 12.0 (RTX 50)",
                fix=f"--gpu {','.join(PORTABLE)}",
            )
    return tuple(sorted(dict.fromkeys(words), key=_order))


def rtx_groups(
    requested: Sequence[str], known: Collection[str], precision: str
) -> list[tuple[str, ...]]:
    """Split capabilities into groups that share one TensorRT-RTX engine each.

    Args:
        requested: the words of `--gpu`; empty for `PORTABLE`.
        known: what the installed TensorRT-RTX can build for.
        precision: of the graph.

    Raises:
        UsageError: TensorRT-RTX builds nothing for one of them, or not in this precision.
    """
    chosen = parse_capabilities(requested) or PORTABLE
    for capability in chosen:
        if capability not in known:
            cards = f" ({_KNOWN[capability]})" if capability in _KNOWN else ""
            raise UsageError(
                f"TensorRT-RTX builds no plan for compute capability {capability}{cards}",
                expected=f"one of {', '.join(sorted(known, key=_order))}",
                fix="--engine trt on a machine with that GPU and TensorRT, or --engine onnx",
            )
        if precision == "bf16" and _order(capability) < _order("8.0"):
            raise UsageError(
                f"compute capability {capability} ({_KNOWN[capability]}) has no bf16",
                expected="8.0 or later for bf16",
                fix=f"--precision fp16, or --gpu without {capability}",
            )
    shared = tuple(c for c in chosen if c not in ALONE)
    groups = [shared] if shared else []
    return groups + [(c,) for c in chosen if c in ALONE]


def _order(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor)
