"""What tests of several sources share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtime.sources.web_camera import Camera


@pytest.fixture
def camera() -> Iterator[Camera]:
    """A server as a camera has one."""
    running = Camera()
    yield running
    running.close()
