"""Contact sheets: a few frames of each clip, and under them the depth that each checkpoint makes of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from depth_engine import DepthEngine
from depth_engine.report.colours import colorize

_TILE_HEIGHT = 150
_BAR = 16  # pixels above each row for its name


def sheet_of(
    engines: Sequence[tuple[str, DepthEngine]], clips: Sequence[tuple[str, list[np.ndarray]]], columns: int
) -> np.ndarray:
    """One picture uint8 `[H, W, 3]`: for each clip a row of frames, then a row of depth for each checkpoint.

    Args:
        engines: Checkpoints by name.
        clips: Frames by name; each clip is estimated whole.
        columns: Frames shown of each, evenly spread.
    """
    rows: list[np.ndarray] = []
    for name, frames in clips:
        shown = np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int)
        rows.append(_row(name, [frames[i] for i in shown]))
        for label, engine in engines:
            values = engine.estimate(np.stack(frames)).values
            if engine.spec.kind != "disparity":
                values = -values
            low, high = np.quantile(values, [0.02, 0.98])
            unit = np.clip((values - low) / max(float(high - low), 1e-9), 0, 1).astype(np.float32)
            size = frames[0].shape[1], frames[0].shape[0]
            pictures = [cv2.resize(colorize(unit[i][None], "disparity")[0], size) for i in shown]
            rows.append(_row(label, pictures))
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 2), (0, width - row.shape[1]), (0, 0))) for row in rows])


def _row(name: str, pictures: Sequence[np.ndarray]) -> np.ndarray:
    tiles = []
    for picture in pictures:
        width = max(1, round(picture.shape[1] * _TILE_HEIGHT / picture.shape[0]))
        tiles.append(cv2.resize(picture, (width, _TILE_HEIGHT), interpolation=cv2.INTER_AREA))
    row = np.concatenate(tiles, axis=1)
    bar = np.zeros((_BAR, row.shape[1], 3), dtype=np.uint8)
    cv2.putText(bar, name, (2, _BAR - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, row])


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    Image.fromarray(picture).save(unfinished, format="PNG")
    unfinished.replace(path)
