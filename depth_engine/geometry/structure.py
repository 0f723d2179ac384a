"""Cameras and points of a clip by pycolmap: features, sequential matching, incremental mapping."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from depth_engine.geometry.cameras import intrinsics
from depth_engine.geometry.motion import MIN_MATCHES, Motion, Pair, measure_motion

# Of the pictures that are matched. SIFT starts an octave above, and few clips hold more detail than this.
WORK_SIDE_PX = 640
_FEATURES = 2048
_OVERLAP = 8  # neighbours that a frame is matched with; and besides those 1, 2, 4, ... frames away
_CHUNK = 8  # pictures between two signs of progress
# Motion beyond a turn of the camera that noise does not explain, in pixels of the matched pictures.
_MIN_PARALLAX_PX = 0.7
# Focal length over the longest side: from a fisheye-like 118 degrees across to a telephoto lens of 14.
_FOCAL_RATIOS = (0.3, 4.0)
# First guesses: a phone held level, an action camera, a longer lens. From a bad one the way is not found.
_FIRST_FOCAL_RATIOS = (0.75, 0.5, 1.2)
_MIN_FRAMES, _MIN_POINTS = 3, 50  # of a model; a lens that is not found can leave cameras and no point
_ENOUGH = 0.8  # share of the frames that makes other attempts needless
_SAME_LENS = 0.02  # relative difference of focal lengths below which two attempts have found the same lens
_SEEDS = (0, 1)  # of COLMAP's draws: what one does not find, another may
# That the first two frames see their points under, at the least. COLMAP's own is much for a hand that sways; with a
# known lens a small one tells enough.
_BEGIN_ANGLES_DEG = (16.0, 3.0)
ASSUMED_FOV_DEG = 50.0  # vertical; a phone held level, a normal lens
FovBy = Literal["given", "found", "assumed"]
Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Observations:
    """Points that a frame saw.

    Attributes:
        pixels: `[N, 2]` column and row, centres at +0.5, in the matched pictures.
        points: `[N]`, rows of `Structure.points`.
    """

    pixels: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class Structure:
    """What mapping found.

    Attributes:
        camera_from_world: Frame index -> pose `[4, 4]`.
        K: `[3, 3]`, of the matched pictures.
        points: `[M, 3]`, in a unit of its own.
        colors: uint8 `[M, 3]`.
        observations: Frame index -> what it saw.
        reprojection_px: Mean error in the matched pictures.
        fov_by: Where K comes from: `given`, `found`, or `assumed` where it could not be found.
    """

    camera_from_world: dict[int, np.ndarray]
    K: np.ndarray
    points: np.ndarray
    colors: np.ndarray
    observations: dict[int, Observations]
    reprojection_px: float
    fov_by: FovBy


def map_pictures(
    folder: Path, frames: Sequence[int], height: int, width: int, fov_deg: float | None, on_progress: Progress
) -> Structure:
    """Find cameras and points.

    Args:
        folder: Holds `images/000000.png` and so on, the number being the frame's; the data base is written into it.
        frames: Their indices.
        height: Of the pictures.
        width: Of the pictures.
        fov_deg: Vertical field of view, if it is known; else it is found too.
        on_progress: Told a stage and how far in the clip it is, in frames.

    Raises:
        ImportError: pycolmap is not installed.
        ValueError: The camera did not move, or no two frames gave a beginning.
    """
    import pycolmap

    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL.value)
    pycolmap.set_random_seed(0)
    database = folder / "database.db"
    _extract(pycolmap, database, folder / "images", frames, height, width, fov_deg, on_progress)
    pairing = pycolmap.SequentialPairingOptions()
    pairing.overlap = _OVERLAP
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = 0
    matching = pycolmap.FeatureMatchingOptions()
    # The search is approximate: with several threads, which matches it misses differs from run to run. With an
    # exact one, finding cameras takes three times as long.
    matching.num_threads = 1
    pycolmap.match_sequential(
        database,
        matching_options=matching,
        pairing_options=pairing,
        verification_options=verification,
        device=pycolmap.Device.cpu,
    )
    on_progress("match", frames[-1] + 1)
    focal_px = None if fov_deg is None else float(intrinsics(fov_deg, height, width)[0, 0])
    motion = measure_motion(_matched_points(pycolmap, database), height, width, focal_px)
    if motion.parallax_px < _MIN_PARALLAX_PX:
        raise ValueError(_no_motion(motion, width, fov_deg))
    model, fov_by = _best_model(pycolmap, folder, database, frames, height, width, fov_deg, on_progress)
    if model is None:
        raise ValueError(
            f"poses: no two frames of the clip gave a beginning (parallax {motion.parallax_px:.1f} px of {width}); "
            "give a longer part of it, --fov, or --method odometry"
        )
    return _structure(model, fov_by)


def _best_model(
    pycolmap: Any,
    folder: Path,
    database: Path,
    frames: Sequence[int],
    height: int,
    width: int,
    fov_deg: float | None,
    on_progress: Progress,
) -> tuple[Any, FovBy]:
    """The model that explains most, of several attempts if the lens is to be found."""

    def attempt(seed: int, find_fov: bool, angle_deg: float = _BEGIN_ANGLES_DEG[0]) -> Any:
        return _map(pycolmap, folder, database, frames, find_fov, (seed, angle_deg), on_progress)

    def with_known_lens() -> Any:
        attempts = (attempt(seed, False, angle_deg) for angle_deg in _BEGIN_ANGLES_DEG for seed in _SEEDS)
        return next((model for model in attempts if model is not None), None)

    if fov_deg is not None:
        return with_known_lens(), "given"
    best = None
    for seed, ratio in itertools.product(_SEEDS, _FIRST_FOCAL_RATIOS):
        _set_focal(pycolmap, database, ratio * max(height, width))
        model = attempt(seed, True)
        if model is None:
            continue
        agreed = best is not None and abs(_focal_px(model) / _focal_px(best) - 1) < _SAME_LENS
        best = model if best is None else max(best, model, key=_support)
        if agreed and best.num_reg_images() >= _ENOUGH * len(frames):
            break
    if best is not None:
        return best, "found"
    # A short way tells too little of the lens; with a likely one it tells the cameras all the same.
    _set_focal(pycolmap, database, intrinsics(ASSUMED_FOV_DEG, height, width)[0, 0])
    return with_known_lens(), "assumed"


def _focal_px(model: Any) -> float:
    return next(iter(model.cameras.values())).mean_focal_length()


def _support(model: Any) -> tuple[int, int]:
    """What it explains: a wrong lens may reach as many frames, but holds fewer of the points seen in them."""
    return model.num_reg_images(), model.compute_num_observations()


def _map(
    pycolmap: Any,
    folder: Path,
    database: Path,
    frames: Sequence[int],
    find_fov: bool,
    begin: tuple[int, float],
    on_progress: Progress,
) -> Any:
    """COLMAP's incremental mapping: its model, or None if no pair of frames gave a beginning.

    Args:
        pycolmap: The module.
        folder: Of the pictures.
        database: Of the matches.
        frames: Indices of the pictures.
        find_fov: Whether the focal length is refined.
        begin: Seed, and the angle in degrees that the first pair of frames sees its points under.
        on_progress: Told how many frames are done.
    """
    options = pycolmap.IncrementalPipelineOptions()
    options.multiple_models = False
    options.random_seed, options.mapper.init_min_tri_angle = begin
    options.num_threads = 1  # the same cameras in every run
    options.min_focal_length_ratio, options.max_focal_length_ratio = _FOCAL_RATIOS
    options.ba_refine_focal_length = find_fov
    options.mapper.abs_pose_refine_focal_length = find_fov
    (folder / "models").mkdir(exist_ok=True)
    counter = itertools.count(3)  # it begins with a pair
    models = pycolmap.incremental_mapping(
        database,
        folder / "images",
        folder / "models",
        options,
        next_image_callback=lambda: on_progress("map", frames[min(len(frames), next(counter)) - 1] + 1),
    )
    for model in models.values():  # one at the most
        camera = next(iter(model.cameras.values()))
        ratio = _focal_px(model) / max(camera.width, camera.height)
        enough = model.num_reg_images() >= _MIN_FRAMES and len(model.points3D) >= _MIN_POINTS
        if enough and _FOCAL_RATIOS[0] < ratio < _FOCAL_RATIOS[1]:
            return model
    return None


def _set_focal(pycolmap: Any, database: Path, focal_px: float) -> None:
    with pycolmap.Database.open(database) as held:
        camera = held.read_camera(1)
        camera.params = [focal_px, *camera.params[1:]]
        held.update_camera(camera)


def _extract(
    pycolmap: Any,
    database: Path,
    images: Path,
    frames: Sequence[int],
    height: int,
    width: int,
    fov_deg: float | None,
    on_progress: Progress,
) -> None:
    reader = pycolmap.ImageReaderOptions()
    # A lens's distortion is left out: what is rendered from these cameras knows none.
    reader.camera_model = "SIMPLE_PINHOLE"
    if fov_deg is not None:
        focal_px = intrinsics(fov_deg, height, width)[0, 0]
        reader.camera_params = f"{focal_px},{width / 2},{height / 2}"
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.sift.max_num_features = _FEATURES
    # Entered in order first: else the threads' order numbers them, and what is found differs from run to run.
    all_names = [picture_name(index) for index in frames]
    with pycolmap.Database.open(database):
        pass
    pycolmap.import_images(database, images, pycolmap.CameraMode.SINGLE, all_names, reader)
    reader.existing_camera_id = 1
    for start in range(0, len(frames), _CHUNK):
        names = all_names[start : start + _CHUNK]
        pycolmap.extract_features(
            database,
            images,
            names,
            camera_mode=pycolmap.CameraMode.SINGLE,
            reader_options=reader,
            extraction_options=extraction,
            device=pycolmap.Device.cpu,
        )
        on_progress("features", frames[start + len(names) - 1] + 1)


def picture_name(index: int) -> str:
    """File name of a frame."""
    return f"{index:06d}.png"


def _matched_points(pycolmap: Any, database: Path) -> list[Pair]:
    """The points that pairs of frames share, as matching found and checked them."""
    pairs = []
    with pycolmap.Database.open(database) as held:
        pixels = {image.image_id: held.read_keypoints(image.image_id)[:, :2] for image in held.read_all_images()}
        pair_ids, geometries = held.read_two_view_geometries()
        for pair_id, geometry in zip(pair_ids, geometries, strict=True):
            matches = np.asarray(geometry.inlier_matches)
            if len(matches) >= MIN_MATCHES:
                first, second = pycolmap.pair_id_to_image_pair(pair_id)
                pairs.append((pixels[first][matches[:, 0]], pixels[second][matches[:, 1]]))
    return pairs


def _no_motion(motion: Motion, width: int, fov_deg: float | None) -> str:
    if motion.moved_px < _MIN_PARALLAX_PX:
        how = f"points move by {motion.moved_px:.2f} px of {width}"
    else:
        how = (
            f"points move by {motion.moved_px:.1f} px of {width}, but as when a camera turns, "
            f"up to {motion.parallax_px:.2f} px"
        )
    hint = "; if it moves before a flat scene, give --fov" if fov_deg is None else ""
    return f"poses: the camera did not move: {how}; a clip filmed from a place that changes is needed{hint}"


def _structure(model: Any, fov_by: FovBy) -> Structure:
    """Plain arrays of pycolmap's reconstruction."""
    ids = sorted(model.points3D)
    row_of = {point_id: row for row, point_id in enumerate(ids)}
    poses, observations = {}, {}
    for image_id in model.reg_image_ids():
        image = model.images[image_id]
        index = int(Path(image.name).stem)
        poses[index] = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
        seen = image.get_observation_points2D()
        observations[index] = Observations(
            np.array([point.xy for point in seen]).reshape(-1, 2),
            np.array([row_of[point.point3D_id] for point in seen], dtype=np.int64),
        )
    camera = next(iter(model.cameras.values()))
    return Structure(
        dict(sorted(poses.items())),
        np.array(camera.calibration_matrix()),
        np.array([model.points3D[point_id].xyz for point_id in ids]).reshape(-1, 3),
        np.array([model.points3D[point_id].color for point_id in ids], dtype=np.uint8).reshape(-1, 3),
        observations,
        float(model.compute_mean_reprojection_error()),
        fov_by,
    )
