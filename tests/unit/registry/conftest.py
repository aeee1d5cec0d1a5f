from __future__ import annotations

import pytest

from minhos_mesh.registry.envoy import EnvoyMessages


@pytest.fixture(scope="session")
def envoy() -> EnvoyMessages:
    return EnvoyMessages.from_file()
