"""The script that checks SVD's real shapes, run on small ones: it must not rot between its rare runs."""

from __future__ import annotations

import sys

import pytest

from tests.benchmarks import full_size_svd


def test_full_size_script_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small_unet = {
        "block_out_channels": (32, 32, 32, 32),
        "num_attention_heads": (2, 2, 2, 2),
        "cross_attention_dim": 32,
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 96,
        "layers_per_block": 1,
    }
    monkeypatch.setattr(full_size_svd, "UNET", full_size_svd.UNET | small_unet)
    monkeypatch.setattr(
        full_size_svd, "VAE", full_size_svd.VAE | {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
    )
    monkeypatch.setattr(sys, "argv", ["full_size_svd"])
    full_size_svd.main()
    printed = capsys.readouterr().out
    assert "depth (2, 64, 64) float32, finite: True" in printed
    assert "peak memory" in printed
