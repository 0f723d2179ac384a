"""Colours and materials of procedural scenes, drawn at random."""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Sequence

from depth_train.scenes.procedural.description import Material


def _linear(rgb: Sequence[float]) -> tuple[float, float, float]:
    r, g, b = (min(max(c, 0.0), 1.0) ** 2.2 for c in rgb)
    return (r, g, b)


def hsv(rng: random.Random, hue: tuple[float, float], sat: tuple[float, float], val: tuple[float, float]):
    """A linear colour drawn from ranges of hue, saturation and value."""
    return _linear(colorsys.hsv_to_rgb(rng.uniform(*hue) % 1.0, rng.uniform(*sat), rng.uniform(*val)))


def _any_color(rng: random.Random) -> tuple[float, float, float]:
    """Mostly greys, whites and muted tones, as in made things; now and then a saturated one."""
    u = rng.random()
    if u < 0.35:
        return hsv(rng, (0.02, 0.16), (0.0, 0.15), (0.15, 0.95))
    if u < 0.6:
        return hsv(rng, (0.02, 0.12), (0.2, 0.6), (0.2, 0.8))
    if u < 0.82:
        return hsv(rng, (0.0, 1.0), (0.1, 0.45), (0.2, 0.85))
    return hsv(rng, (0.0, 1.0), (0.55, 0.95), (0.3, 0.9))


# name: hue, saturation and value ranges of the colours, feature size, contrast, fine weight, bump ranges
_NATURAL: dict[str, tuple[tuple[float, float], ...]] = {
    "grass": ((0.17, 0.33), (0.25, 0.65), (0.22, 0.65), (0.3, 2.0), (0.3, 0.8), (0.6, 1.4), (0.1, 0.4)),
    "soil": ((0.04, 0.11), (0.15, 0.5), (0.25, 0.7), (0.3, 2.5), (0.2, 0.7), (0.3, 1.0), (0.05, 0.3)),
    "asphalt": ((0.05, 0.65), (0.0, 0.08), (0.2, 0.55), (0.5, 4.0), (0.1, 0.4), (0.2, 0.8), (0.02, 0.1)),
    "leaves": ((0.15, 0.36), (0.3, 0.7), (0.15, 0.55), (0.2, 0.8), (0.4, 1.0), (0.7, 1.5), (0.4, 0.9)),
    "bark": ((0.03, 0.12), (0.1, 0.45), (0.15, 0.5), (0.1, 0.4), (0.4, 0.9), (0.5, 1.2), (0.2, 0.6)),
    "rock": ((0.03, 0.15), (0.0, 0.2), (0.25, 0.7), (0.3, 1.5), (0.3, 0.8), (0.5, 1.2), (0.3, 0.7)),
    "fur": ((0.02, 0.11), (0.05, 0.55), (0.12, 0.8), (0.15, 0.8), (0.15, 0.7), (0.3, 1.0), (0.1, 0.3)),
    "skin": ((0.02, 0.08), (0.25, 0.6), (0.35, 0.9), (0.1, 0.3), (0.05, 0.15), (0.2, 0.5), (0.02, 0.08)),
    "hill": ((0.15, 0.55), (0.1, 0.4), (0.25, 0.55), (8.0, 30.0), (0.3, 0.7), (0.6, 1.2), (0.1, 0.4)),
}


def draw_material(rng: random.Random, kind: str) -> Material:
    """Draw a material of a natural kind, or one of plain, wood, masonry, tiles, facade, stripes, picture, any."""
    if kind == "any":
        kind = rng.choice(("plain", "plain", "wood", "stripes", "picture", "tiles", "masonry", "fur"))
    if kind in _NATURAL:
        hue, sat, val, feature, contrast, fine, bump = _NATURAL[kind]
        center = rng.uniform(*hue)
        near_hue = (max(hue[0], center - 0.05), min(hue[1], center + 0.05))  # two close hues: one material
        colors = hsv(rng, near_hue, sat, val), hsv(rng, near_hue, sat, val)
        draws = [rng.uniform(*span) for span in (contrast, fine, bump)]
        size = math.exp(rng.uniform(math.log(feature[0]), math.log(feature[1])))
        stretch = (2.0, 0.4, 2.0) if kind == "bark" else (1.0, 1.0, 1.0)
        return Material(*colors, size, *draws, stretch=stretch)
    color = _any_color(rng)
    other = tuple(min(1.0, c * rng.uniform(0.5, 1.4)) for c in color)
    base = Material(color, other, rng.uniform(0.2, 2.0), rng.uniform(0.02, 0.2), rng.uniform(0.2, 1.0), 0.03)  # type: ignore[arg-type]
    base.gloss = rng.uniform(0.0, 0.3) if rng.random() < 0.3 else 0.0
    base.mortar = tuple(c * rng.choice((0.3, 0.6, 1.4)) for c in color)  # type: ignore[assignment]
    if kind == "wood":
        base.color_a = hsv(rng, (0.05, 0.11), (0.3, 0.65), (0.25, 0.8))
        base.color_b = tuple(c * rng.uniform(0.4, 0.8) for c in base.color_a)  # type: ignore[assignment]
        base.contrast, base.feature_m = rng.uniform(0.15, 0.4), rng.uniform(0.1, 0.3)
        base.stretch = rng.choice(((0.15, 2.0, 2.0), (2.0, 2.0, 0.15)))
        if rng.random() < 0.5:
            base.pattern, base.period_m, base.gap = 1, (rng.uniform(0.08, 0.2), rng.uniform(0.8, 2.0)), (0.05, 0.01)
            base.tone, base.mortar = rng.uniform(0.05, 0.3), tuple(0.4 * c for c in base.color_b)  # type: ignore[assignment]
    elif kind == "masonry":
        base.color_a = hsv(rng, (0.01, 0.1), (0.05, 0.6), (0.3, 0.8))
        base.color_b = tuple(c * rng.uniform(0.5, 0.9) for c in base.color_a)  # type: ignore[assignment]
        size = rng.uniform(0.15, 0.6)
        base.pattern, base.period_m, base.stagger = 1, (size, size * rng.uniform(0.3, 0.6)), 0.5
        base.gap, base.tone, base.bump = (0.06, 0.12), rng.uniform(0.1, 0.5), 0.15
        base.mortar = hsv(rng, (0.05, 0.1), (0.0, 0.1), (0.4, 0.8))
    elif kind == "tiles":
        size = rng.uniform(0.1, 0.8)
        base.pattern, base.period_m = (2 if rng.random() < 0.4 else 1), (size, size)
        joint = rng.uniform(0.02, 0.06)
        base.gap, base.tone = (joint, joint), rng.uniform(0.0, 0.25)
    elif kind == "facade":
        base.pattern, base.period_m = 1, (rng.uniform(1.2, 3.5), rng.uniform(2.4, 3.6))
        base.gap, base.tone = (rng.uniform(0.4, 0.7), rng.uniform(0.35, 0.6)), 0.6
        base.mortar = color if rng.random() < 0.5 else hsv(rng, (0.03, 0.12), (0.05, 0.45), (0.4, 0.9))
        base.color_a, base.color_b = (hsv(rng, (0.5, 0.65), (0.05, 0.3), (0.1, 0.45)) for _ in range(2))
    elif kind == "stripes":
        base.pattern, base.period_m = 1, (math.exp(rng.uniform(math.log(0.03), math.log(0.5))), 10.0)
        base.gap, base.tone, base.mortar = (rng.uniform(0.1, 0.6), 0.0), rng.uniform(0.0, 0.4), _any_color(rng)
    elif kind == "picture":
        base.color_b, base.contrast = _any_color(rng), rng.uniform(0.4, 1.0)
        base.feature_m = rng.uniform(0.1, 0.5)
    return base
