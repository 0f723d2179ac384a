"""What a data set holds, in pictures and numbers: `depth-train inspect`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from depth_engine.report.colours import colorize, contact_sheet, shrink_to_width
from depth_train.data.datasets import SKIP_LIST, DepthClip, DepthDataset, frame_name

_TILE_WIDTH = 320


@dataclass(frozen=True)
class Statistics:
    """Of the clips that were looked at.

    Attributes:
        clips: How many.
        sizes: Picture sizes met, `WxH`.
        valid_share: Share of pixels with known truth.
        sky_share: Share of pixels that are sky.
        depth_quantiles: 2, 50 and 98 % quantiles of finite depth; metres, or the data set's unit.
        motion: Median distance of neighbouring cameras, same unit; nan for single frames.
    """

    clips: int
    sizes: tuple[str, ...]
    valid_share: float
    sky_share: float
    depth_quantiles: tuple[float, float, float]
    motion: float


def bad_frames(dataset: DepthDataset, report: Callable[[str], None]) -> dict[str, str]:
    """Read every frame; names of those that training could not use, with the reasons.

    Args:
        dataset: What to read.
        report: Takes a line for each sequence.
    """
    bad: dict[str, str] = {}
    for number, sequence in enumerate(dataset.sequences, 1):
        report(f"sequence {number} of {len(dataset.sequences)}: {sequence.name}, {len(sequence.frames)} frames")
        for place in range(len(sequence.frames)):
            try:
                dataset.load_frame(sequence, place)
            except ValueError as error:
                bad[frame_name(sequence, place)] = " ".join(str(error).split())
    return bad


def write_skip_list(root: Path, bad: Mapping[str, str]) -> Path:
    """Add frames to the data set's skip list; what is in it stays."""
    path = root / SKIP_LIST
    kept = path.read_text().splitlines() if path.is_file() else []
    partial = path.with_name(path.name + ".partial")
    partial.write_text("\n".join([*kept, *(f"{name}\t{reason}" for name, reason in bad.items())]) + "\n")
    partial.replace(path)
    return path


def pick(dataset: DepthDataset, count: int) -> list[DepthClip]:
    """Clips spread evenly over the data set; of those that can't be read, none.

    Raises:
        ValueError: None can be read.
    """
    numbers = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    clips, last = [], None
    for number in numbers:
        try:
            clips.append(dataset[int(number)])
        except ValueError as error:
            last = error
    if last is not None and not clips:
        raise ValueError(f"none of {len(numbers)} clips can be read: {last}") from last
    return clips


def measure(clips: list[DepthClip]) -> Statistics:
    """Count what the clips hold."""
    finite = [clip.depth_m[clip.valid & np.isfinite(clip.depth_m)] for clip in clips]
    depth = np.concatenate(finite)
    steps = [np.linalg.norm(np.diff(clip.world_from_camera[:, :3, 3], axis=0), axis=1) for clip in clips]
    motion = np.concatenate(steps)
    motion = motion[np.isfinite(motion)]
    pixels = sum(clip.valid.size for clip in clips)
    low, middle, high = np.quantile(depth, [0.02, 0.5, 0.98]) if depth.size else (np.nan,) * 3
    return Statistics(
        clips=len(clips),
        sizes=tuple(sorted({f"{clip.rgb.shape[2]}x{clip.rgb.shape[1]}" for clip in clips})),
        valid_share=sum(int(clip.valid.sum()) for clip in clips) / pixels,
        sky_share=sum(int(np.isinf(clip.depth_m).sum()) for clip in clips) / pixels,
        depth_quantiles=(float(low), float(middle), float(high)),
        motion=float(np.median(motion)) if motion.size else float("nan"),
    )


def truth_picture(clip: DepthClip, frame: int) -> np.ndarray:
    """Disparity of a frame in colour, between the clip's 2 and 98 % quantiles; what is not valid is black."""
    with np.errstate(divide="ignore"):
        disparity = np.where(clip.valid, 1 / clip.depth_m, 0)  # sky -> 0
    known = disparity[clip.valid]
    low, high = np.quantile(known, [0.02, 0.98]) if known.size else (0.0, 1.0)
    unit = np.clip((disparity[frame] - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)
    return colorize(unit, "disparity") * clip.valid[frame][..., None].astype(np.uint8)


def write_sheet(clips: list[DepthClip], path: Path) -> None:
    """First and last frame of each clip, each beside its depth; a row per clip, the whole of the first one's shape."""
    tiles: list[np.ndarray] = []
    for clip in clips:
        for frame in (0, len(clip.rgb) - 1):
            tiles += [
                shrink_to_width(picture, _TILE_WIDTH) for picture in (clip.rgb[frame], truth_picture(clip, frame))
            ]
    height, width = tiles[0].shape[:2]
    same = [np.asarray(Image.fromarray(tile).resize((width, height))) for tile in tiles]
    partial = path.with_name(path.name + ".partial")
    Image.fromarray(contact_sheet(same, 4)).save(partial, format="PNG")
    partial.replace(path)
