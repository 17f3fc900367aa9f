"""What holds for the whole suite: one thread, no network, no settings from the machine it runs on.

Every annotation of interp and probes is checked at each call, so nothing of them is imported before that.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests import checked

checked.install("interp", "probes")

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"  # two workers on two cores; and sums in the same order everywhere
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_MODE": "disabled",
    "MPLBACKEND": "Agg",
    "COLUMNS": "120",
}
for _name in [name for name in os.environ if name.startswith("INTERP_")]:
    del os.environ[_name]
os.environ["INTERP_BUDGET"] = "off"  # sizes would depend on how busy the machine is
# what was compiled once is kept: rewritten assertions, and modules that the kernels of notebooks import
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

FIRST = ("tests/architecture/test_notebooks.py", "tests/golden/", "tests/real/")
"""The longest files: a worker that took one of them last would leave the other idle."""
_LOCAL = ("127.", "::1", "localhost", "0.0.0.0")


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(_LOCAL):
            raise RuntimeError(f"a test asked for {address[0]}: the suite runs offline")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order is kept otherwise."""
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[None]:
    """Collect without looking for garbage among what stays to the end; it is not looked at later either."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()
