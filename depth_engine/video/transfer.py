"""From stored values of a picture to what is seen: sRGB, scene-linear light, Cineon's logarithmic film density."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from depth_engine.checks import known_name

Transfer = Literal["srgb", "linear", "log"]
TRANSFERS: tuple[str, ...] = get_args(Transfer)

# Cineon's conversion (Kodak, "Grayscale Transformations of Cineon Digital Film Data", 1993): of 1023 counts, 685 is
# the white of a scene and 95 its black; a count is .002 of negative density, and the film's gamma is .6.
_LOG_COUNTS, _LOG_WHITE, _LOG_BLACK = 1023, 685, 95
_DENSITY_PER_COUNT, _FILM_GAMMA = 0.002, 0.6


def check_transfer(transfer: str | None) -> None:
    """Refuse a transfer function that is not known.

    Raises:
        ValueError: Lists those that are accepted.
    """
    if transfer is not None:
        known_name("transfer", transfer, TRANSFERS)


def as_seen(values: np.ndarray, transfer: str) -> np.ndarray:
    """8-bit sRGB of stored values. What is brighter than white becomes white; NaN becomes black.

    Args:
        values: Float, 1 is white (or the largest count).
        transfer: How they are stored, one of `TRANSFERS`.

    Returns:
        uint8 of the same shape.
    """
    values = np.nan_to_num(values.astype(np.float32, copy=False), nan=0.0)
    if transfer == "log":
        values = _linear_of_log(values)
    if transfer != "srgb":
        values = _srgb_of_linear(values)
    return np.rint(np.clip(values, 0, 1) * np.float32(255)).astype(np.uint8)


def _linear_of_log(values: np.ndarray) -> np.ndarray:
    per_count = _DENSITY_PER_COUNT / _FILM_GAMMA
    black = 10 ** ((_LOG_BLACK - _LOG_WHITE) * per_count)
    light = 10 ** ((np.clip(values, 0, 1) * _LOG_COUNTS - _LOG_WHITE) * np.float32(per_count))
    return (light - black) / (1 - black)


def _srgb_of_linear(light: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** np.float32(1 / 2.4) - 0.055)
