"""Points followed from frame to frame, and cameras from points whose place is known."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np

_WINDOW = {
    "winSize": (21, 21),
    "maxLevel": 4,
    "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
}
_BACK_PX = 0.7  # a point that does not come back this near, followed backwards, is lost
_REPROJECTION_PX = 2.0
MIN_INLIERS = 20
_UNDISTORTED = np.zeros(5)


def work_picture(rgb: np.ndarray, side_px: int, sample_aspect: Fraction = Fraction(1)) -> np.ndarray:
    """A frame as points are looked for in it: pixels made square, longest side `side_px` at the most.

    Args:
        rgb: uint8 `[H, W, 3]`.
        side_px: Pixels.
        sample_aspect: Width / height of one pixel of the frame.
    """
    shown = (rgb.shape[0], float(rgb.shape[1] * sample_aspect))
    share = min(1.0, side_px / max(shown))
    height, width = (max(1, round(size * share)) for size in shown)
    if (height, width) == rgb.shape[:2]:
        return rgb
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if share < 1 else cv2.INTER_LINEAR)


def follow(before: np.ndarray, after: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points of a picture are in the next, by Lucas and Kanade's method over a pyramid, there and back.

    Args:
        before: Grey uint8 `[H, W]`.
        after: Grey uint8 `[H, W]`.
        pixels: `[N, 2]`, centres at +0.5.

    Returns:
        Pixels `[N, 2]`, and which were found `[N]`.
    """
    if not len(pixels):
        return pixels, np.zeros(0, dtype=bool)
    start = (pixels - 0.5).astype(np.float32)[:, None]  # OpenCV counts from the centre of the first pixel
    there, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, start, None, **_WINDOW)  # type: ignore[call-overload]
    back, seen_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **_WINDOW)  # type: ignore[call-overload]
    returned = np.linalg.norm(back - start, axis=-1)[:, 0] < _BACK_PX
    height, width = after.shape
    place = there[:, 0]
    inside = (place >= 0).all(axis=1) & (place[:, 0] < width) & (place[:, 1] < height)
    return place.astype(np.float64) + 0.5, (seen[:, 0] > 0) & (seen_back[:, 0] > 0) & returned & inside


def locate(points: np.ndarray, pixels: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The camera that sees points at pixels: PnP with RANSAC, refined over the inliers.

    Args:
        points: `[N, 3]` in the world.
        pixels: `[N, 2]`.
        K: `[3, 3]`.

    Returns:
        camera_from_world `[4, 4]` and the inliers `[N]`; None if there are too few.
    """
    if len(points) < MIN_INLIERS:
        return None
    cv2.setRNGSeed(0)
    found, turn, move, inliers = cv2.solvePnPRansac(
        points.astype(np.float64),
        pixels.astype(np.float64),
        K,
        _UNDISTORTED,
        iterationsCount=300,
        reprojectionError=_REPROJECTION_PX,
        confidence=0.9999,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not found or inliers is None or len(inliers) < MIN_INLIERS:
        return None
    inside = np.zeros(len(points), dtype=bool)
    inside[np.asarray(inliers).ravel().astype(np.int64)] = True
    turn, move = cv2.solvePnPRefineLM(points[inside], pixels[inside], K, _UNDISTORTED, turn, move)
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(turn)[0]
    pose[:3, 3] = move[:, 0]
    return pose, inside


def project(points: np.ndarray, camera_from_world: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels `[N, 2]` and planar depth `[N]` of points `[N, 3]`."""
    local = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = (local @ K.T)[:, :2] / local[:, 2:]
    return pixels, local[:, 2]


def lift(pixels: np.ndarray, depth: np.ndarray, world_from_camera: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Points `[N, 3]` in the world of pixels `[N, 2]` at planar depths `[N]`."""
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(K).T
    return (rays * depth[:, None]) @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]


def sample(values: np.ndarray, pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Values at pixels of a picture of `height` x `width`, from a map of any size: float64 `[N]`, the nearest one."""
    rows = np.floor(pixels[:, 1] * values.shape[0] / height).astype(int).clip(0, values.shape[0] - 1)
    columns = np.floor(pixels[:, 0] * values.shape[1] / width).astype(int).clip(0, values.shape[1] - 1)
    return values[rows, columns].astype(np.float64)
