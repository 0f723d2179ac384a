"""Depth made to agree with a clip's parallax: better where the camera moves, untouched where parallax says nothing."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import pytest
from depth_train.scenes.procedural.clips import make_clips

from depth_engine.consistency.matching import where_from
from depth_engine.depth.consistency_metrics import temporal_alignment_error
from depth_engine.geometry.fusion import fit_levels, settle, trust_of
from depth_engine.geometry.matches import matches_from
from depth_engine.geometry.shot_depth import ShotDepth, agree_with_geometry
from depth_engine.geometry.triangulation import Parallax, agree, relative_camera, triangulate_pair

SEED, FRAMES, HEIGHT, WIDTH = 2007, 12, 144, 256


class Scene(NamedTuple):
    """A clip whose camera moves, its true disparity, and a network's idea of it."""

    greys: list[np.ndarray]
    disparity: np.ndarray
    network: np.ndarray
    K: np.ndarray
    camera_from_world: np.ndarray

    @property
    def typical(self) -> float:
        return float(np.median(self.disparity))

    def run(self, **changed: object) -> ShotDepth:
        given = {"greys": self.greys, "network": self.network, "K": self.K, "disparity": self.typical}
        return agree_with_geometry(**{**given, "camera_from_world": self.camera_from_world, **changed})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scene() -> Scene:
    clip = make_clips([SEED], FRAMES, HEIGHT, WIDTH)[0]
    depth = clip.depth_m.numpy()
    disparity = np.where(np.isfinite(depth), 1 / np.maximum(depth, 1e-6), 0).astype(np.float32)
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.rgb.numpy()]
    # Off by a ramp over the picture and by a level that wanders; of no unit.
    ramp = np.linspace(0.6, 1.6, WIDTH, dtype=np.float32)
    level = 1 + 0.2 * np.sin(np.arange(FRAMES, dtype=np.float32))[:, None, None]
    network = (0.1 + 0.4 * disparity * ramp * level).astype(np.float32)
    return Scene(greys, disparity, network, clip.K.numpy(), np.linalg.inv(clip.world_from_camera.numpy()))


def relative_error(made: np.ndarray, true: np.ndarray) -> float:
    """Median of |log ratio| after one scale and shift by least squares."""
    known = true > 0
    scale, shift = np.polyfit(made[known], true[known], 1)
    return float(np.median(np.abs(np.log(np.maximum(scale * made[known] + shift, 1e-3) / true[known]))))


def test_parallax_gives_the_true_disparity_and_says_where(scene: Scene) -> None:
    pairs = []
    for other in (0, 2, 9, 11):
        there = where_from(scene.greys[5], scene.greys[other], "medium")
        back = where_from(scene.greys[other], scene.greys[5], "medium")
        pose, far = scene.camera_from_world[5], scene.camera_from_world[other]
        pairs.append(triangulate_pair(matches_from(there, back), scene.K, pose, far))
    parallax = agree([pair.parallax for pair in pairs])
    sure = trust_of(parallax) > 0.5
    assert sure.mean() > 0.03
    ratio = parallax.disparity[sure] / np.maximum(scene.disparity[5][sure], 1e-6)
    assert np.mean(np.abs(ratio - 1) < 0.25) > 0.9
    assert min(pair.on_line for pair in pairs) > 0.7


def test_depth_follows_the_parallax_in_the_cameras_unit(scene: Scene) -> None:
    made = scene.run()
    assert made.step == "pixels" and not made.note
    assert made.error_after < 0.8 * made.error_before
    assert relative_error(made.disparity, scene.disparity) < 0.6 * relative_error(scene.network, scene.disparity)
    sure = made.trust > 0.5
    assert 0.9 < float(np.median(made.disparity[sure] / scene.disparity[sure])) < 1.1
    assert np.array_equal(scene.run().disparity, made.disparity)


@pytest.mark.parametrize(
    ("case", "why"),
    [("stands", "moves too little"), ("turned", "explain"), ("inside out", "contradict")],
)
def test_what_parallax_can_not_help_is_left_as_it_is(scene: Scene, case: str, why: str) -> None:
    changed: dict[str, object] = {}
    if case == "stands":
        changed |= {"greys": scene.greys[:1] * FRAMES, "camera_from_world": np.tile(np.eye(4), (FRAMES, 1, 1))}
    elif case == "turned":  # cameras of another clip: they move up where these move otherwise
        poses = np.tile(np.eye(4), (FRAMES, 1, 1))
        poses[:, 1, 3] = 0.3 * scene.camera_from_world[:, 0, 3] + 0.05 * np.arange(FRAMES)
        changed["camera_from_world"] = poses
    else:
        changed["network"] = scene.network.max() - scene.network
    made = scene.run(**changed)
    assert made.step == "none" and why in made.note
    assert made.disparity is changed.get("network", scene.network)


def test_neighbouring_frames_agree_on_their_surfaces(scene: Scene) -> None:
    made = scene.run()
    poses = np.linalg.inv(scene.camera_from_world)
    error = temporal_alignment_error(1 / np.maximum(made.disparity, 1e-3), scene.K, poses)
    assert error < 1.0  # per cent; without the averaging along the cameras it is 4.6


def test_depth_that_is_right_already_is_left_as_it_is(scene: Scene) -> None:
    """Parallax is noisier than the truth: on regions that it was not shown, bending the truth to it helps nothing."""
    true = (0.1 + 0.4 * scene.disparity).astype(np.float32)
    made = scene.run(network=true)
    assert made.step == "none" and "did not improve" in made.note
    assert made.disparity is true


def test_levels_are_found_beside_wrong_pixels(scene: Scene) -> None:
    trust = np.ones_like(scene.disparity)
    wrong = np.random.default_rng(0).random(scene.disparity.shape) < 0.3
    found = np.where(wrong, scene.typical * 5, scene.disparity).astype(np.float32)
    levels = fit_levels((scene.disparity - 0.2) / 3, found, trust)
    assert levels is not None
    assert np.allclose(levels.scale, 3, rtol=0.03) and np.allclose(levels.shift, 0.2, atol=0.03)


def test_frames_settle_on_one_surface(scene: Scene) -> None:
    noise = np.random.default_rng(0).normal(1, 0.05, (FRAMES, 1, 1)).astype(np.float32)
    trust = np.zeros_like(scene.disparity)
    made = settle(scene.disparity * noise, trust, scene.K, scene.camera_from_world, scene.typical)
    known = scene.disparity > 0

    def wander(values: np.ndarray) -> float:
        levels = [np.median(values[t][known[t]] / scene.disparity[t][known[t]]) for t in range(FRAMES)]
        return float(np.std(levels))

    assert wander(made) < 0.5 * wander(scene.disparity * noise)


def test_an_estimate_on_which_neighbours_disagree_is_not_sure() -> None:
    shape = (4, 4)
    near, far = (Parallax(np.full(shape, d, np.float32), np.full(shape, 0.01, np.float32)) for d in (1.0, 2.0))
    assert not trust_of(agree([near, far])).any()
    assert trust_of(agree([near, near])).min() > 0.9


def test_a_point_lands_where_the_relative_camera_says() -> None:
    K = np.array([[100.0, 0, 32], [0, 100, 24], [0, 0, 1]])
    other = np.eye(4)
    other[:3, 3] = (-0.5, 0.1, 0.2)
    turned, moved = relative_camera(K, np.eye(4), other)
    pixel, disparity = np.array([40.0, 20.0, 1.0]), 0.25
    point = np.linalg.inv(K) @ pixel / disparity
    seen = K @ (point + other[:3, 3])
    landed = turned @ pixel + disparity * moved
    assert np.allclose(landed[:2] / landed[2], seen[:2] / seen[2])


def test_bad_arguments_are_named(scene: Scene) -> None:
    with pytest.raises(ValueError, match="network: shape"):
        scene.run(network=scene.network[:-1])
    with pytest.raises(ValueError, match="not finite"):
        scene.run(camera_from_world=scene.camera_from_world * np.nan)
    with pytest.raises(ValueError, match="above 0"):
        scene.run(disparity=0.0)
