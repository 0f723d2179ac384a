from __future__ import annotations

import numpy as np
import pytest
import torch

from depth_engine.models.svd.noise import seeded_noise


def test_noise_belongs_to_seed_frame_and_draw() -> None:
    noise = seeded_noise(7)
    shape = (4, 3, 5)
    first = noise(12, 0, shape)
    noise(3, 1, shape)
    assert torch.equal(noise(12, 0, shape), first), "the order of calls does not matter"
    others = [noise(13, 0, shape), noise(12, 1, shape), noise(12, -1, shape), seeded_noise(8)(12, 0, shape)]
    assert not any(torch.equal(first, other) for other in others)


def test_noise_is_standard_normal_and_independent() -> None:
    noise = seeded_noise(0)
    draws = np.stack([noise(frame, draw, (4096,)).numpy() for frame in range(6) for draw in (-1, 0, 1)])
    assert abs(draws.mean()) < 0.01
    assert abs(draws.std() - 1) < 0.01
    # 3 sigma of a correlation over 4096 samples is 0.047; the largest of 153 pairs may pass it a little.
    assert np.abs(np.corrcoef(draws) - np.eye(len(draws))).max() < 0.07


def test_golden_values_hold_on_every_machine() -> None:
    expected = torch.tensor([[0.0599110, 0.0155596, -1.1644385, -0.1326471]])
    assert torch.allclose(seeded_noise(0)(0, 0, (1, 4)), expected, atol=1e-6)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=r"seed: .* 0 to 2\^64 - 1"):
        seeded_noise(seed)
