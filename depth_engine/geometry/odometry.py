"""Cameras from pictures with depth, frame by frame: points are lifted by their depth, followed, and seen again."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from depth_engine.geometry.alignment import Samples
from depth_engine.geometry.placement import Placement
from depth_engine.geometry.tracking import MIN_INLIERS, follow, lift, locate, project, sample

_POINTS = 800  # followed at a time
_RENEW_SHARE = 0.7  # below this share of them, new ones are taken up
_SPACING_PX = 9
_PATIENCE = 5  # frames in a row that may fail before the rest counts as lost
_EDGE = 0.05  # share by which depth may differ around a point: a corner on a border belongs to two surfaces


@dataclass
class Odometry:
    """A camera followed through a clip. The world is the first camera's.

    Attributes:
        K: `[3, 3]`, of the pictures given to `add`.
        placement: From the depth's values to planar depth.
        camera_from_world: Frame index -> pose.
        samples: Raw values and the depth that the points say, for the alignment error.
        reprojection_px: Errors of the points, one median per frame.
    """

    K: np.ndarray
    placement: Placement
    camera_from_world: dict[int, np.ndarray] = field(default_factory=dict)
    samples: list[Samples] = field(default_factory=list)
    reprojection_px: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._grey = np.zeros((0, 0), np.uint8)
        self._pixels, self._points = np.zeros((0, 2)), np.zeros((0, 3))
        self._scene: list[tuple[np.ndarray, np.ndarray]] = []
        self._failed = 0

    @property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the scene: `[M, 3]`, and their colours uint8 `[M, 3]`."""
        return np.concatenate([p for p, _ in self._scene]), np.concatenate([c for _, c in self._scene])

    def add(self, index: int, rgb: np.ndarray, values: np.ndarray) -> None:
        """Go on with a frame: uint8 `[H, W, 3]` at the size that K is of, and raw depth values of any size."""
        import cv2

        if self._failed > _PATIENCE:
            return
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        if not self.camera_from_world:
            pose = np.eye(4)
        else:
            pixels, found = follow(self._grey, grey, self._pixels)
            located = locate(self._points[found], pixels[found], self.K)
            if located is None:
                self._failed += 1
                return
            pose, inside = located
            self._pixels, self._points = pixels[found][inside], self._points[found][inside]
            self._note(pose, values, *grey.shape)
        self._failed = 0
        self._grey = grey
        self.camera_from_world[index] = pose
        if len(self._points) < _RENEW_SHARE * _POINTS:
            self._take_up(pose, rgb, grey, values)

    def _note(self, pose: np.ndarray, values: np.ndarray, height: int, width: int) -> None:
        seen, depth = project(self._points, pose, self.K)
        self.reprojection_px.append(float(np.median(np.linalg.norm(seen - self._pixels, axis=1))))
        self.samples.append(Samples(sample(values, self._pixels, height, width), depth))

    def _take_up(self, pose: np.ndarray, rgb: np.ndarray, grey: np.ndarray, values: np.ndarray) -> None:
        """Corners where none is followed yet, lifted by their depth."""
        import cv2

        height, width = grey.shape
        free = np.full(grey.shape, 255, np.uint8)
        for column, row in (self._pixels - 0.5).round().astype(int):
            cv2.circle(free, (int(column), int(row)), _SPACING_PX, (0,), -1)
        wanted = _POINTS - len(self._points)
        corners = cv2.goodFeaturesToTrack(grey, wanted, 0.005, _SPACING_PX, mask=free)
        if corners is None:
            return
        pixels = corners[:, 0].astype(np.float64) + 0.5
        around = np.stack(
            [
                self.placement.depth(sample(values, pixels + (dx, dy), height, width))
                for dx, dy in ((0, 0), (-2, 0), (2, 0), (0, -2), (0, 2))
            ]
        ).astype(np.float64)
        near, far = around.min(axis=0), around.max(axis=0)
        good = np.isfinite(around).all(axis=0) & (near > 0) & (far <= near * (1 + _EDGE))
        points = lift(pixels[good], around[0][good], np.linalg.inv(pose), self.K)
        rows, columns = (pixels[good] - 0.5).round().astype(int).T[::-1]
        self._scene.append((points, rgb[rows.clip(0, height - 1), columns.clip(0, width - 1)]))
        self._pixels = np.concatenate([self._pixels, pixels[good]])
        self._points = np.concatenate([self._points, points])
        if not self.camera_from_world or len(self._points) >= MIN_INLIERS:
            return
        raise ValueError("poses: the pictures and their depth have too few points to follow; try --method colmap")
