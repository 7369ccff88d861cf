"""What passes between who hands out blocks and who makes them: lines of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from stpl_core.errors import (
    BreachError,
    EnvironmentFault,
    SourceLostError,
    StplError,
    UsageError,
)
from stpl_core.option import fill, flat
from stpl_core.options import BackfillOptions
from stpl_runtime.backfilling.block import BlockReport

_KINDS: dict[int, type[StplError]] = {
    kind.exit_code: kind for kind in (UsageError, BreachError, EnvironmentFault, SourceLostError)
}


def options_text(options: BackfillOptions) -> str:
    """Options as a line."""
    return json.dumps(flat(options), default=str)


def options_of(text: str) -> BackfillOptions:
    """Options from a line."""
    return fill(BackfillOptions, json.loads(text), "backfill")


def answer_of(result: BlockReport | StplError) -> dict[str, Any]:
    """A result, or why there is none, as plain values."""
    if isinstance(result, BlockReport):
        return {"report": asdict(result)}
    return {
        "exit_code": result.exit_code,
        "found": result.found,
        "expected": result.expected,
        "fix": result.fix,
    }


def report_of(answer: dict[str, Any]) -> BlockReport:
    """The result in an answer.

    Raises:
        StplError: the error in it, of its kind.
    """
    if "report" in answer:
        return BlockReport(**answer["report"])
    kind = _KINDS.get(answer["exit_code"], EnvironmentFault)
    raise kind(answer["found"], expected=answer["expected"], fix=answer["fix"])
