"""Painted textures: what covers floors, walls and things where no photograph does. A pure function of the generator."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

SIDE = 256  # texels
RNG = np.random.Generator


def _noise(rng: RNG, power: float = 1.0, stretch: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Noise `[SIDE, SIDE]` that tiles, mean 0, deviation 1; a higher power is smoother."""
    spectrum = np.fft.fft2(rng.normal(size=(SIDE, SIDE)))
    fy, fx = np.meshgrid(np.fft.fftfreq(SIDE) * stretch[0], np.fft.fftfreq(SIDE) * stretch[1], indexing="ij")
    frequency = np.hypot(fx, fy)
    frequency[0, 0] = 1
    values = np.fft.ifft2(spectrum / np.maximum(frequency, 1e-3) ** power).real
    return ((values - values.mean()) / (values.std() + 1e-9)).astype(np.float32)


def color(rng: RNG, low: float = 0.1, high: float = 0.9, saturation: float = 0.5) -> np.ndarray:
    """A colour `[3]` in sRGB, [0, 1]."""
    grey = rng.uniform(low, high)
    tint = rng.normal(0, 1, 3)
    tint -= tint.mean()
    return np.clip(grey + tint * saturation * 0.25 * rng.uniform(0, 1), 0.02, 0.98).astype(np.float32)


def _finish(values: np.ndarray) -> np.ndarray:
    """uint8 RGBA of `[SIDE, SIDE, 3]` in [0, 1]."""
    rgb = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, dtype=np.uint8)])


def _mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    return a + (b - a) * np.clip(share, 0, 1)[..., None]


def grain(rng: RNG) -> np.ndarray:
    """Asphalt, concrete, sand, plaster: one colour with fine and coarse noise."""
    base = color(rng, 0.2, 0.85, 0.4)
    shade = 1 + rng.uniform(0.02, 0.15) * _noise(rng, 0.3) + rng.uniform(0.02, 0.12) * _noise(rng, 1.3)
    return _finish(base * shade[..., None])


def mottled(rng: RNG) -> np.ndarray:
    """Grass, moss, soil, marble: two colours in patches."""
    share = 0.5 + rng.uniform(0.2, 0.6) * _noise(rng, rng.uniform(0.6, 1.6), (1.0, rng.uniform(0.4, 2.5)))
    mixed = _mix(color(rng, 0.1, 0.6, 0.8), color(rng, 0.2, 0.8, 0.8), share)
    return _finish(mixed * (1 + 0.12 * _noise(rng, 0.2))[..., None])


def grass(rng: RNG) -> np.ndarray:
    """Green to dry blades."""
    dry = rng.uniform(0, 1)
    dark = np.array([0.10, 0.16, 0.04]) * (1 - dry) + np.array([0.30, 0.25, 0.12]) * dry
    light = np.array([0.42, 0.55, 0.18]) * (1 - dry) + np.array([0.72, 0.64, 0.40]) * dry
    share = 0.5 + 0.25 * _noise(rng, 0.2, (0.4, 1.0)) + 0.25 * _noise(rng, 1.2)
    return _finish(_mix(dark, light, share))


def _cells(rows: int, columns: int, stagger: float, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Number of the cell under each texel, and how much of it is cell rather than gap."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    row = np.floor(y * rows).astype(int)
    across = (x * columns + stagger * (row % 2)) % columns
    column = np.floor(across).astype(int)
    inside_x, inside_y = across - column, y * rows - row
    border = np.minimum(
        np.minimum(inside_x, 1 - inside_x) / columns, np.minimum(inside_y, 1 - inside_y) / rows
    )  # in widths of the picture
    return row * columns + column, np.clip((border - gap / 2) * SIDE * 0.7 + 0.5, 0, 1)


def cells(rng: RNG) -> np.ndarray:
    """Bricks, tiles, paving, planks: cells in mortar, each a little different."""
    kind = rng.integers(4)
    rows, columns, stagger, gap = (
        (8, 4, 0.5, 0.012),
        (int(rng.integers(2, 7)),) * 2 + (0.0, 0.008),
        (int(rng.integers(3, 8)), int(rng.integers(1, 3)), rng.uniform(0.2, 0.5), 0.004),
        (int(rng.integers(3, 7)), int(rng.integers(3, 7)), 0.5, 0.015),
    )[kind]
    cell, cover = _cells(rows, columns, stagger, gap)
    base, mortar = color(rng, 0.15, 0.85, 0.8), color(rng, 0.2, 0.8, 0.2)
    tone = rng.normal(1, rng.uniform(0.0, 0.18), rows * columns)[cell % (rows * columns)]
    streaks = _noise(rng, 0.9, (1.0, 0.15) if kind == 2 else (1.0, 1.0))
    face = base * (tone * (1 + 0.08 * streaks))[..., None]
    return _finish(mortar + (face - mortar) * cover[..., None])


def stripes(rng: RNG) -> np.ndarray:
    """Wallpaper, blinds, cloth: stripes, checks or dots in two or three colours."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    count = int(rng.integers(2, 12))
    a, b, c = color(rng, 0.2, 0.95, 1.0), color(rng, 0.1, 0.9, 1.0), color(rng, 0.1, 0.9, 1.0)
    kind = rng.integers(4)
    if kind == 0:
        share = np.sin(2 * np.pi * count * x) > rng.uniform(-0.7, 0.7)
    elif kind == 1:
        share = (np.sin(2 * np.pi * count * x) > 0) ^ (np.sin(2 * np.pi * count * y) > 0)
    elif kind == 2:
        share = np.hypot((x * count) % 1 - 0.5, (y * count) % 1 - 0.5) < rng.uniform(0.15, 0.45)
    else:
        waves = np.sin(2 * np.pi * (count * x + 0.3 * np.sin(2 * np.pi * count * y)))
        share = waves * np.sin(2 * np.pi * count * y) > rng.uniform(-0.3, 0.5)
    image = _mix(a, b, share.astype(np.float32))
    if rng.random() < 0.4:
        image = _mix(image, c, (np.sin(2 * np.pi * (count * 2 * x + 0.25)) > 0.8).astype(np.float32))
    return _finish(image * (1 + 0.03 * _noise(rng, 0.3))[..., None])


def wood(rng: RNG) -> np.ndarray:
    """Grain along one axis."""
    dark, light = color(rng, 0.15, 0.4, 0.3) * [1.15, 1.0, 0.8], color(rng, 0.4, 0.8, 0.3) * [1.1, 1.0, 0.8]
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    rings = np.sin(2 * np.pi * (int(rng.integers(3, 12)) * y + 0.35 * _noise(rng, 1.6, (1.0, 0.2))))
    return _finish(_mix(dark, light, 0.5 + 0.3 * rings + 0.2 * _noise(rng, 0.6, (1.0, 0.1))))


def print_(rng: RNG) -> np.ndarray:
    """A page, a poster, a label or a screen: blocks, shapes and lines of letters, flat whatever they show."""
    image = np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    image[:] = (color(rng, 0.05, 0.98, 0.8) * 255).astype(np.uint8)
    for _ in range(int(rng.integers(2, 14))):
        paint = tuple(int(v) for v in color(rng, 0.02, 0.98, 1.0) * 255)
        p, q = (tuple(int(v) for v in rng.integers(0, SIDE, 2)) for _ in range(2))
        kind = rng.integers(5)
        if kind == 0:
            cv2.rectangle(image, p, q, paint, -1)
        elif kind == 1:
            cv2.circle(image, p, int(rng.integers(4, 70)), paint, -1, cv2.LINE_AA)
        elif kind == 2:
            cv2.fillPoly(image, [rng.integers(0, SIDE, (int(rng.integers(3, 6)), 1, 2)).astype(np.int32)], paint)
        elif kind == 3:
            cv2.line(image, p, q, paint, int(rng.integers(1, 12)), cv2.LINE_AA)
        else:
            words = "".join(chr(int(v)) for v in rng.integers(65, 122, int(rng.integers(3, 16))))
            size = float(rng.uniform(0.4, 2.2))
            cv2.putText(image, words, (10, p[1]), int(rng.integers(0, 8)), size, paint, int(1 + size), cv2.LINE_AA)
    return np.dstack([image, np.full((SIDE, SIDE), 255, dtype=np.uint8)])


def leaves(rng: RNG) -> np.ndarray:
    """A bunch of leaves before nothing: its alpha has holes."""
    image = np.zeros((SIDE, SIDE, 4), dtype=np.uint8)
    green = np.array([rng.uniform(30, 120), rng.uniform(60, 140), rng.uniform(15, 60)])
    for _ in range(int(rng.integers(90, 260))):
        centre = tuple(int(v) for v in rng.integers(8, SIDE - 8, 2))
        axes = (int(rng.integers(4, 20)), int(rng.integers(2, 9)))
        paint = np.clip(green * rng.uniform(0.5, 1.6), 0, 255)
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, (*(float(v) for v in paint), 255.0), -1)
    return image


PLAIN: tuple[Callable[[RNG], np.ndarray], ...] = (grain, mottled, cells, stripes, wood, print_)
