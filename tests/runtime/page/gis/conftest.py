"""A page whose newest nowcast the tests choose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from stpl_core.bundle import Bundle
from stpl_runtime.engine import Session

if TYPE_CHECKING:
    from tests.runtime.page.serving import Served


@pytest.fixture(scope="module")
def page(bundle: Bundle, session: Session) -> Iterator[Served]:
    from tests.runtime.page.serving import serve

    with serve(bundle, session) as served:
        yield served


@pytest.fixture
def shown(page: Served) -> Served:
    """With chances, in degrees of longitude and latitude."""
    from tests.runtime.page.gis.grids import grid_of, nowcast_on, with_chances

    made = with_chances(nowcast_on(grid_of("longitude and latitude")))
    page.hub.views[""].nowcast(made)
    return page
