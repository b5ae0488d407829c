from __future__ import annotations

import pytest

from osvdeploy.demo.guest import build_guest
from osvdeploy.demo.toolchain import find_compilers
from osvdeploy.osv.kernel import Kernel, read_kernel


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    """The boot guest, built by the preferred compiler of this machine."""
    if not find_compilers():
        pytest.skip("no compiler for the boot guest: neither cc nor the PyPI package ziglang")
    return read_kernel(build_guest(tmp_path_factory.mktemp("guest") / "loader.img"))
