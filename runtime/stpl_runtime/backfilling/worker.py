"""A worker process of `backfill`: `python -m stpl_runtime.backfilling.worker`.

Reads lines: the options first, then numbers of blocks. Writes a line of JSON for each: a report or
an error, and `{"ready": true}` once everything is open. Ends when its input does, so that it never
outlives who started it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, TextIO

from stpl_core.errors import StplError
from stpl_core.host.memory import memory_fault
from stpl_runtime.backfilling.block import open_maker
from stpl_runtime.backfilling.wire import answer_of, options_of


def main() -> int:
    """Make blocks until there are no more; the exit code of the error that ended it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it decides
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print on stdout is no answer
    try:
        with open_maker(options_of(sys.stdin.readline())) as maker:
            _put(answers, {"ready": True})
            for line in sys.stdin:
                _put(answers, answer_of(maker.make(int(line))))
    except StplError as error:
        _put(answers, answer_of(error))
        return error.exit_code
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        fault = memory_fault(error)
        if fault is None:
            raise
        _put(answers, answer_of(fault))
        return fault.exit_code
    return 0


def _put(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
