"""A clip seen anew, frame by frame: what `novel-view render` and `novel-view stereo` do between reading and writing.

Frames stream: besides the frame at hand only the last view is held, and with poses a few neighbours of the same shot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from depth_engine.geometry.cameras import Camera, intrinsics
from depth_engine.runs.pieces import Piece
from depth_engine.video.frame import Frame
from novel_view.paths import Path
from novel_view.warp.edges import give_mixed_to_near, sharpen_borders
from novel_view.warp.fill import fill_from_frames, fill_spatial, steady
from novel_view.warp.reproject import Warped, warp

if TYPE_CHECKING:
    from torch import Tensor

Fill = Literal["none", "spatial", "temporal"]
FILLS = ("none", "spatial", "temporal")
# Other frames that fill holes: as far apart as they can be within what is held.
NEIGHBOURS = 24
_USED_NEIGHBOURS = 6


@dataclass(frozen=True)
class Borders:
    """What is done to depth borders before pixels are moved.

    Attributes:
        sharpen: Move them to the picture's.
        edge: Let pixels that mix both sides move with the nearer one.
    """

    sharpen: bool = True
    edge: bool = True

    def mended(self, depth: np.ndarray, rgb: np.ndarray) -> np.ndarray:
        """Planar depth `[H, W]` with its borders where the picture `[H, W, 3]` has them."""
        if self.sharpen:
            depth = sharpen_borders(depth, rgb)
        return give_mixed_to_near(depth, rgb) if self.edge else depth


class SourceFrame(NamedTuple):
    """A frame with its depth and camera.

    Attributes:
        index: Counts the frames of the take, from 0.
        time_s: When it is shown.
        rgb: uint8 `[H, W, 3]`.
        depth: Planar depth, float32 `[H, W]`; inf is far away, nan unknown.
        camera: Where it was taken; in the world if the clip has poses, else at the origin.
        starts_shot: Whether it is the first of a shot.
    """

    index: int
    time_s: float
    rgb: np.ndarray
    depth: np.ndarray
    camera: Camera
    starts_shot: bool


def source_frames(
    clip: Iterator[Frame],
    depth: Iterator[np.ndarray],
    camera_of: Callable[[int], Camera],
    *,
    borders: Borders = Borders(),
    first: int = 0,
) -> Iterator[SourceFrame]:
    """Frames of a clip with their depth.

    Args:
        clip: With the shots marked.
        depth: Planar depth at the clip's size, frame by frame.
        camera_of: The camera of a frame.
        borders: What is done to depth borders.
        first: Frames before it are read and not prepared.

    Raises:
        ValueError: The depth ends before the clip.
    """
    for frame in clip:
        values, index = next(depth, None), frame.index
        if values is None:
            raise ValueError(f"depth: it ends after {index} frames, before the clip; give --max-frames {index}")
        if index < first:
            continue
        mended = borders.mended(values, frame.rgb)
        yield SourceFrame(index, frame.time_s, frame.rgb, mended, camera_of(index), frame.starts_shot)


def view_camera(frame: SourceFrame, path: Path, median_depth: float) -> Camera:
    """The new camera of a frame, of the frame's size.

    Args:
        frame: The frame.
        path: Where the camera goes.
        median_depth: Of the scene, in the unit of its depth.
    """
    return view_camera_at(frame.time_s, frame.camera, path, median_depth)


def view_camera_at(time_s: float, source: Camera, path: Path, median_depth: float) -> Camera:
    """As `view_camera`, of a frame's time and its camera."""
    view = path(time_s)
    pose = view.pose.copy()
    if not view.in_world:
        pose[:3, 3] *= median_depth
        pose = source.world_from_camera @ pose
    if view.fov_deg is not None:
        pixel_aspect = source.K[1, 1] / source.K[0, 0]
        K = intrinsics(view.fov_deg, source.height, source.width, pixel_aspect)
    else:
        K = source.K * np.array([[view.zoom], [view.zoom], [1.0]])
        K[:2, 2] = source.K[:2, 2]
    return Camera(K, pose, source.height, source.width)


def render_views(
    frames: Iterator[SourceFrame],
    camera_for: Callable[[SourceFrame], Camera],
    fill: Fill,
    first: int = 0,
    last: Warped | None = None,
    device: str = "cpu",
) -> Iterator[tuple[SourceFrame, Warped, np.ndarray]]:
    """Each frame from its new camera, and where it has holes before any filling, bool `[H, W]`.

    Args:
        frames: In order.
        camera_for: The new camera of a frame.
        fill: What becomes of holes; `temporal` needs cameras in one world.
        first: Frames before it serve to fill others alone.
        last: The view before that frame, if there is one.
        device: Where to make the views, as `warp` takes it.
    """
    for frame, others in _with_neighbours(frames) if fill == "temporal" else ((frame, []) for frame in frames):
        if frame.index < first:
            continue
        target = camera_for(frame)
        view = warp(frame.rgb, frame.depth, frame.camera, target, antialias=True, device=device)
        opened = view.hole
        if fill == "temporal":
            around = ((other.rgb, other.depth, other.camera) for other in others)
            view, _ = fill_from_frames(view, target, around, device=device)
        if fill != "none":
            view = steady(fill_spatial(view), None if frame.starts_shot else last)
            last = view
        yield frame, view, opened


def _with_neighbours(frames: Iterator[SourceFrame]) -> Iterator[tuple[SourceFrame, list[SourceFrame]]]:
    """Each frame with some of its shot's frames around it, the nearest first: they are most alike."""
    held: deque[SourceFrame] = deque()
    waiting: deque[SourceFrame] = deque()

    def others(frame: SourceFrame) -> list[SourceFrame]:
        around = sorted(
            (other for other in held if other is not frame), key=lambda other: abs(other.index - frame.index)
        )
        step = max(1, len(around) // _USED_NEIGHBOURS)
        return around[step - 1 :: step]

    for frame in frames:
        if frame.starts_shot:
            while waiting:
                done = waiting.popleft()
                yield done, others(done)
            held.clear()
        held.append(frame)
        waiting.append(frame)
        if len(waiting) > NEIGHBOURS // 2:
            done = waiting.popleft()
            yield done, others(done)
        if len(held) > NEIGHBOURS + 1:
            held.popleft()
    while waiting:
        done = waiting.popleft()
        yield done, others(done)


def piece_of(rgb: np.ndarray, last: Warped, companions: dict[str, np.ndarray]) -> Piece:
    """A piece of one frame.

    Args:
        rgb: Picture to show, uint8 `[H, W, 3]`.
        last: The view to go on from.
        companions: Name -> picture beside it, uint8 `[h, w, 3]`.
    """
    import torch

    state: dict[str, Tensor] = {
        name: torch.from_numpy(np.ascontiguousarray(getattr(last, name))) for name in Warped._fields
    }
    return Piece(rgb[None], state, {name: picture[None] for name, picture in companions.items()})


def mask_of(hole: np.ndarray) -> np.ndarray:
    """Holes bool `[h, w]` as a picture, white, uint8 `[h, w, 3]`."""
    return np.repeat(hole.astype(np.uint8)[..., None] * np.uint8(255), 3, axis=2)


def last_view(state: dict[str, Tensor]) -> Warped | None:
    """The view that a piece ended with."""
    return Warped(*(state[name].numpy() for name in Warped._fields)) if state else None
