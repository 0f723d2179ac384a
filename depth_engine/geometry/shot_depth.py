"""A shot's depth made to agree with its own parallax, where that can be trusted; else left as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from depth_engine.consistency.matching import where_from
from depth_engine.geometry.fusion import SOFTENING, Levels, correct, fit_levels, settle, trust_of, typical_disparity
from depth_engine.geometry.matches import Found, matches_from
from depth_engine.geometry.triangulation import Parallax, agree, choose_neighbours, triangulate_pair

# Cameras that explain fewer of the matches are wrong, or nearly everything moves on its own.
_LEAST_ON_LINE = 0.7
# Rank correlation of parallax and network: below it one of the two is wrong, such as a scene found inside out.
_LEAST_AGREEMENT = 0.3
_LEAST_TRUST = 0.03  # mean over pixels and frames
_FINER_GAIN = 0.97  # pixels must bring the error of levels on withheld regions to this share of it
# What is done must bring the error there to this share. Seen and withheld regions share errors of the flow: true depth,
# bent to parallax, seems to gain a tenth.
_WITHHELD_GAIN = 0.85
_TILE_ROWS, _TILE_COLUMNS, _TILE_FRAMES = 3, 4, 12  # withheld regions: parts of the picture, for so many frames
_FLOWS_KEPT = 128  # neighbours lie at most 24 frames away: those of the next frames are still there
_MOST_ERROR = 0.7  # of the logarithm of disparity: beyond, an outlier


@dataclass(frozen=True)
class ShotDepth:
    """Depth of a shot.

    Attributes:
        disparity: float32 `[T, H, W]`, in one over the cameras' unit; the network's own where nothing was changed.
        trust: float32 `[T, H, W]` in [0, 1]: how sure the parallax is.
        step: The last step that was taken: `none`, `levels` or `pixels`.
        error_before: Mean difference of the logarithm of disparity, on withheld regions, of one scale and shift.
        error_after: Of the step that was taken.
        note: Why nothing was changed; empty where something was.
    """

    disparity: np.ndarray
    trust: np.ndarray
    step: str
    error_before: float
    error_after: float
    note: str = ""


def parallax_of_shot(
    greys: Sequence[np.ndarray], K: np.ndarray, camera_from_world: np.ndarray, disparity: float
) -> tuple[list[Parallax], float]:
    """Disparity of every frame by its neighbours, and the share of matches that lie on their epipolar lines.

    Args:
        greys: uint8 `[H, W]`, of all frames.
        K: `[3, 3]` of these pictures.
        camera_from_world: `[T, 4, 4]`.
        disparity: Of a typical point.
    """

    @lru_cache(maxsize=_FLOWS_KEPT)  # a frame's neighbour often has it as a neighbour, too
    def found(frame: int, other: int) -> Found:
        return where_from(greys[frame], greys[other], "medium")

    estimates: list[Parallax] = []
    on_lines: list[float] = []
    for frame, grey in enumerate(greys):
        pairs = []
        for other in choose_neighbours(frame, K, camera_from_world, disparity, grey.shape[1]):
            matches = matches_from(found(frame, other), found(other, frame))
            pair = triangulate_pair(matches, K, camera_from_world[frame], camera_from_world[other])
            pairs.append(pair.parallax)
            on_lines.append(pair.on_line)
        estimates.append(agree(pairs))
    known = [share for share in on_lines if np.isfinite(share)]
    return estimates, float(np.mean(known)) if known else 0.0


def agree_with_geometry(
    greys: Sequence[np.ndarray],
    network: np.ndarray,
    K: np.ndarray,
    camera_from_world: np.ndarray,
    disparity: float,
) -> ShotDepth:
    """Bring a network's depth of one shot to what the shot's parallax says.

    Args:
        greys: uint8 `[H, W]`, of all frames, two or more.
        network: float32 `[T, H, W]`, disparity of the same size, near is large.
        K: `[3, 3]` of these pictures.
        camera_from_world: `[T, 4, 4]`, OpenCV axes.
        disparity: Of a typical point, such as the median of the mapped points', in one over the cameras' unit.

    Raises:
        ValueError: Sizes or counts differ, or cameras or disparity are not finite.
    """
    _check(greys, network, K, camera_from_world, disparity)
    estimates, on_line = parallax_of_shot(greys, K, camera_from_world, disparity)
    found = np.stack([each.disparity for each in estimates])
    trust = np.stack([trust_of(each) for each in estimates])

    def unchanged(note: str) -> ShotDepth:
        return ShotDepth(network, trust, "none", float("nan"), float("nan"), note)

    if on_line < _LEAST_ON_LINE:
        return unchanged(f"the cameras explain {100 * on_line:.0f} % of the matches between frames")
    if float(trust.mean()) < _LEAST_TRUST:
        return unchanged(f"the camera moves too little: parallax is sure in {100 * trust.mean():.1f} % of the pixels")
    agreement = _rank_correlation(network, found, trust)
    if not agreement > _LEAST_AGREEMENT:
        return unchanged(f"parallax and the network's depth contradict each other (rank correlation {agreement:.2f})")
    typical = typical_disparity(found, trust)
    errors = _withheld_errors(network, found, trust)
    levels = fit_levels(network, found, trust)
    if levels is None or errors is None:
        return unchanged("too little parallax is sure to fit the network's depth to it")
    before, by_levels, by_pixels = errors
    step, after = ("pixels", by_pixels) if by_pixels <= _FINER_GAIN * by_levels else ("levels", by_levels)
    if after > _WITHHELD_GAIN * before:
        return unchanged("parallax did not improve the depth where it was tested")
    made = _levelled(network, levels)
    if step == "pixels":
        made = correct(made, found, trust, typical)
    made = settle(made, trust, K, camera_from_world, typical)
    return ShotDepth(made.astype(np.float32), trust, step, before, after)


def _levelled(network: np.ndarray, levels: Levels) -> np.ndarray:
    return levels.scale[:, None, None] * network + levels.shift[:, None, None]


def _withheld_errors(network: np.ndarray, found: np.ndarray, trust: np.ndarray) -> tuple[float, float, float] | None:
    """Errors of one scale and shift, of levels and of corrected pixels, on regions that they did not see."""
    half = _halves(network.shape)
    sums, weights = np.zeros(3), 0.0
    for fold in (0, 1):
        seen = np.where(half == fold, trust, 0)
        hidden = np.where(half == fold, 0, trust)
        whole, levels = fit_levels(network, found, seen, constant=True), fit_levels(network, found, seen)
        if whole is None or levels is None:
            return None
        typical = typical_disparity(found, seen)
        levelled = _levelled(network, levels)
        steps = (_levelled(network, whole), levelled, correct(levelled, found, seen, typical))
        sums += [_error(step, found, hidden, typical) for step in steps]
        weights += float(hidden.sum())
    if weights == 0:
        return None
    whole_error, levels_error, pixels_error = sums / weights
    return float(whole_error), float(levels_error), float(pixels_error)


def _error(values: np.ndarray, found: np.ndarray, trust: np.ndarray, typical: float) -> float:
    """Sum over trusted pixels of the difference of the logarithm of disparity, weighed by trust."""
    soft = SOFTENING * typical
    off = np.abs(np.log((np.maximum(values, 0) + soft) / (found + soft)))
    return float((trust * np.minimum(off, _MOST_ERROR)).sum())


def _halves(shape: tuple[int, ...]) -> np.ndarray:
    """0 or 1 for every pixel `[T, H, W]`: tiles of the picture in turn, changing places over time."""
    count, height, width = shape
    frames = np.arange(count)[:, None, None] // _TILE_FRAMES
    rows = (np.arange(height) * _TILE_ROWS // height)[None, :, None]
    columns = (np.arange(width) * _TILE_COLUMNS // width)[None, None, :]
    return (frames + rows + columns) % 2


def _rank_correlation(network: np.ndarray, found: np.ndarray, trust: np.ndarray) -> float:
    """Median over frames of Spearman's correlation where parallax is trusted; nan where it is nowhere."""
    from scipy.stats import spearmanr

    correlations = []
    for values, disparity, sure in zip(network, found, trust, strict=True):
        chosen = np.flatnonzero(sure.ravel() > 0.2)[::7]
        if len(chosen) >= 50:
            correlations.append(float(np.asarray(spearmanr(values.ravel()[chosen], disparity.ravel()[chosen]))[0]))
    return float(np.nanmedian(correlations)) if correlations else float("nan")


def _check(
    greys: Sequence[np.ndarray], network: np.ndarray, K: np.ndarray, camera_from_world: np.ndarray, disparity: float
) -> None:
    count = len(greys)
    if count < 2 or network.shape != (count, *greys[0].shape):
        raise ValueError(f"network: shape {network.shape} does not fit {count} pictures (two or more) of one size")
    if camera_from_world.shape != (count, 4, 4) or K.shape != (3, 3):
        raise ValueError(f"cameras: shapes {K.shape}, {camera_from_world.shape} do not fit {count} frames")
    if not (np.isfinite(camera_from_world).all() and np.isfinite(K).all()):
        raise ValueError("cameras: a number is not finite")
    if not (np.isfinite(disparity) and disparity > 0):
        raise ValueError(f"disparity: {disparity} is not accepted; give that of a typical point, above 0")
