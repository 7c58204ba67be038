# SPDX-License-Identifier: Apache-2.0
"""The firmware's parser beside the host's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.firmware.driver import Driver, compiled


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    driver = Driver(compiled(tmp_path_factory.mktemp("firmware")))
    yield driver
    driver.close()
