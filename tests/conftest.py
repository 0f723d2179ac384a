"""Fixtures that more than one test folder uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before torch is imported. Tiny networks gain nothing from threads, and lose tenfold to them on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test may reach for the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def svd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random SVD checkpoint, whole; read only."""
    from tests.tiny_checkpoints import tiny_svd

    return tiny_svd(tmp_path_factory.mktemp("tiny_svd"))


@pytest.fixture
def eight_threads() -> Iterator[None]:
    """Torch computes with eight threads, whatever the machine has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)
