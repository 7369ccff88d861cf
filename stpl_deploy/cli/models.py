"""`stpl-deploy models`: every model, what it costs and where it comes from."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import Annotated

from stpl_core.option import Option
from stpl_deploy.cli.options.common import Json
from stpl_deploy.cli.options.signature import verb


@dataclass(frozen=True)
class ModelsCommand:
    """The options of `models`."""

    json: Json = False
    markdown: Annotated[bool, Option("Print the tables of docs/models.md.", flag="--markdown")] = (
        False
    )


@verb
def models(options: ModelsCommand) -> None:
    """List the models: parameters and GMAC per step as counted, state, source."""
    from stpl_deploy.cli.reports.output import print_json, print_table
    from stpl_deploy.extras import needs

    with needs("train"):
        from stpl_train import catalogue
        from stpl_train.pretrained import pretrained_names

    entries = catalogue.catalogue()
    if options.json:
        print_json([dataclasses.asdict(found) for found in entries])
        return
    if options.markdown:
        sys.stdout.write(catalogue.markdown(entries))
        return
    size = "x".join(str(side) for side in catalogue.FRAME)
    print_table(
        f"Default keys, frames of {size}, counted on the models themselves",
        list(catalogue.COLUMNS),
        catalogue.table_rows(entries),
    )
    for found in entries:
        origin = found.origin
        print(f"  {found.model}: {origin.title}, {origin.paper}; code: {origin.code}")
        if origin.printed:
            print(f"    parameters in print: {origin.printed}; {origin.remark}")
    if names := pretrained_names():
        print(
            f"pretrained: {', '.join(names)}; stpl-deploy export pretrained:{names[0]} --out BUNDLE"
        )
    print("next: stpl-deploy train --list, or --model WORD with any recipe")
