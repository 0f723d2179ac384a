"""How much of a view a frame shows, and how much has to be cut so that no border of the source is in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from depth_engine.geometry.cameras import Camera

MOST_CROP_PERCENT = 40
_MOST_OVERSCAN_PERCENT = 50
AUTO = "auto"
# Borders are looked for in small pictures: a pixel of these is a quarter of a per cent of the width.
_WORK_SIDE_PX = 384
# Depth is smoothed over this share of the width: a thing that leaves the picture opens a hole of its own, no border's.
_SMOOTH = 0.06
_SUBPIXEL_BITS = 4
_MARGIN_PERCENT = 0.3  # for what the small pictures round away


@dataclass(frozen=True)
class Framing:
    """How much of a view the frame shows, so that borders which moved into it can lie outside.

    Attributes:
        crop_percent: Cut from each side, per cent of it; what is left is shown at the clip's size. None: as little as
            leaves no border in any frame.
        overscan_percent: Added to each side, per cent of it; the frame is so much larger.

    Raises:
        ValueError: A number is not accepted, or both are given.
    """

    crop_percent: float | None = 0.0
    overscan_percent: float = 0.0

    def __post_init__(self) -> None:
        given = (
            ("crop", self.crop_percent, MOST_CROP_PERCENT),
            ("overscan", self.overscan_percent, _MOST_OVERSCAN_PERCENT),
        )
        for name, value, most in given:
            if value is not None and not 0 <= value <= most:
                also = f", or {AUTO}" if name == "crop" else ""
                raise ValueError(f"--{name}: {value:g} is not accepted; give per cent of a side, 0 to {most}{also}")
        if self.crop_percent != 0 and self.overscan_percent:
            raise ValueError("--crop, --overscan: give one of them; one cuts what the other adds")

    @classmethod
    def asked(cls, crop: str, overscan: float) -> Framing:
        """From the options as they were typed.

        Raises:
            ValueError: A number is not accepted, or both are given.
        """
        try:
            percent = None if crop == AUTO else float(crop)
        except ValueError:
            raise ValueError(f"--crop: {crop!r} is not accepted; give per cent of a side, or {AUTO}") from None
        return cls(percent, overscan)

    def camera(self, camera: Camera) -> Camera:
        """A camera whose picture is framed so."""
        middle = np.array([camera.width / 2, camera.height / 2])
        K = camera.K.copy()
        zoom = 1 / (1 - 2 * (self.crop_percent or 0.0) / 100)
        added = [round(size * self.overscan_percent / 100) for size in (camera.width, camera.height)]
        K[:2, :2] *= zoom
        K[:2, 2] = middle + zoom * (K[:2, 2] - middle) + added
        return Camera(K, camera.world_from_camera, camera.height + 2 * added[1], camera.width + 2 * added[0])


def least_crop_percent(views: Iterable[tuple[np.ndarray, Camera, Camera]]) -> float:
    """What has to be cut from each side so that no border of a source frame shows in its view.

    Args:
        views: Planar depth `[H, W]` of a frame, its camera, and the view's.

    Returns:
        Per cent of a side, 0 to 50.
    """
    return max((_open_rim_percent(*view) for view in views), default=0.0)


def _open_rim_percent(depth: np.ndarray, source: Camera, target: Camera) -> float:
    """How far into a view its source's borders reach: the outline of the source is drawn into the view."""
    import cv2

    small_source, small_target = _smaller(source), _smaller(target)
    height, width = small_target.height, small_target.width
    known = np.isfinite(depth) & (depth > 0)
    disparity = np.where(known, 1 / np.where(known, depth, 1), 0).astype(np.float32)
    small = cv2.resize(disparity, (small_source.width, small_source.height), interpolation=cv2.INTER_AREA)
    sheet = cv2.GaussianBlur(small, (0, 0), _SMOOTH * small.shape[1], borderType=cv2.BORDER_REPLICATE)
    corners, nearness = _outline(sheet)
    # As in `warp`: pixel p of disparity d lies at K_t (R K_s^-1 p + t d) / d.
    there = np.linalg.inv(small_target.world_from_camera) @ small_source.world_from_camera
    rays = corners @ np.linalg.inv(small_source.K).T @ there[:3, :3].T + nearness[:, None] * there[:3, 3]
    if rays[:, 2].min() <= 0:  # a part of the outline lies behind the camera
        return 50.0
    pixels = rays @ small_target.K.T
    outline = np.clip(pixels[:, :2] / pixels[:, 2:] - 0.5, -10 * width, 10 * width)  # OpenCV counts from the centre
    fixed = np.round(outline * 2**_SUBPIXEL_BITS).astype(np.int32)
    covered = cv2.fillPoly(np.zeros((height, width), np.uint8), [fixed], (1.0,), shift=_SUBPIXEL_BITS)
    # A pixel that the outline crosses counts as covered; its neighbour inside is.
    covered = cv2.erode(covered, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
    rows, columns = np.nonzero(covered == 0)
    if not len(rows):
        return 0.0
    # To the inner side of the pixels.
    across, down = np.minimum(columns + 1, width - columns) / width, np.minimum(rows + 1, height - rows) / height
    return min(50.0, 100 * float(np.minimum(across, down).max()) + _MARGIN_PERCENT)


def _outline(sheet: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points around a picture, `[N, 3]` homogeneous pixels, and their disparity `[N]`, in order."""
    height, width = sheet.shape
    edge = np.pad(sheet, 1, mode="edge")  # on the outer sides of the rim's pixels, corners included
    x, y = (np.clip(np.arange(-0.5, size + 1), 0, size) for size in (width, height))
    sides = [
        (x[:-1], np.zeros(width + 1), edge[0, :-1]),
        (np.full(height + 1, width), y[:-1], edge[:-1, -1]),
        (x[:0:-1], np.full(width + 1, height), edge[-1, :0:-1]),
        (np.zeros(height + 1), y[:0:-1], edge[:0:-1, 0]),
    ]
    columns, rows, nearness = (np.concatenate(part) for part in zip(*sides, strict=True))
    return np.stack([columns, rows, np.ones_like(columns)], axis=1), nearness


def _smaller(camera: Camera) -> Camera:
    share = min(1.0, _WORK_SIDE_PX / max(camera.height, camera.width))
    height, width = (max(1, round(size * share)) for size in (camera.height, camera.width))
    scale = np.diag([width / camera.width, height / camera.height, 1.0])
    return Camera(scale @ camera.K, camera.world_from_camera, height, width)
