"""Options that many verbs have."""

from __future__ import annotations

from typing import Annotated

from stpl_core.option import Option

Json = Annotated[bool, Option("Print the result as JSON.", flag="--json")]
