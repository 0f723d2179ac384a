"""A tiny clip with known depth: textured layers at several distances, seen by a camera that moves."""

from __future__ import annotations

import cv2
import numpy as np

HEIGHT, WIDTH = 72, 128
DISTANCES_M = (12.0, 8.0, 6.0, 4.5, 3.5)  # of the background and of the layers before it, from far to near
FOCAL_PX = 110.0


def layered_clip(frames: int, *, forward_m: float = 0.0, sideways_m: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 `[T, H, W, 3]` and true disparity float32 `[T, H, W]` in 1/m.

    Args:
        frames: T.
        forward_m: Camera's step forward from a frame to the next.
        sideways_m: And to the right.
    """
    rng = np.random.default_rng(0)
    # Layers are painted on sheets wider than the picture; a pixel of a sheet is one of the first picture.
    margin = 160
    shape = (HEIGHT + 2 * margin, WIDTH + 2 * margin)
    sheets, masks = [], []
    for place in range(len(DISTANCES_M)):
        noise = cv2.GaussianBlur(rng.normal(size=(*shape, 3)).astype(np.float32), (0, 0), 1.5)
        sheets.append(np.clip(128 + 70 * noise / noise.std(), 0, 255).astype(np.float32))
        mask = np.zeros(shape, np.float32)
        left = margin + 8 + 24 * (place - 1)
        top = margin + (6 if place % 2 else 34)
        mask[top : top + 30, left : left + 22] = 1
        masks.append(np.ones(shape, np.float32) if place == 0 else mask)
    pictures, disparities = [], []
    for index in range(frames):
        picture = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        disparity = np.zeros((HEIGHT, WIDTH), np.float32)
        for sheet, mask, first_m in zip(sheets, masks, DISTANCES_M, strict=True):
            distance_m = first_m - forward_m * index
            zoom = first_m / distance_m
            right = -FOCAL_PX * sideways_m * index / distance_m
            # Where the sheet's pixels fall: zoomed about the picture's centre, then moved.
            centre = np.array([margin + WIDTH / 2, margin + HEIGHT / 2])
            offset = np.array([WIDTH / 2 + right, HEIGHT / 2]) - zoom * centre
            matrix = np.array([[zoom, 0, offset[0]], [0, zoom, offset[1]]])
            drawn = cv2.warpAffine(sheet, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
            cover = cv2.warpAffine(mask, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_NEAREST) > 0.5
            picture[cover], disparity[cover] = drawn[cover], 1 / distance_m
        pictures.append(picture.round().astype(np.uint8))
        disparities.append(disparity)
    return np.stack(pictures), np.stack(disparities)


def jumping(values: np.ndarray, spread: float = 0.15, seed: int = 2, *, shifted: bool = True) -> np.ndarray:
    """Depth `[T, H, W]` with a scale of its own for each frame, and a shift."""
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(0, spread, len(values)))
    shift = rng.normal(0, spread / 2 * float(np.ptp(values[0])), len(values)) * shifted
    return (values * scale[:, None, None] + shift[:, None, None]).astype(np.float32)
