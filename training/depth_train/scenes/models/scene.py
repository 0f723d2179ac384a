"""A scene by its seed: the place, a few cameras in it, and what they see; a pure function of seed and catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from depth_train.scenes.models import close_ups, indoors, outdoors
from depth_train.scenes.models.builder import Builder, Place
from depth_train.scenes.models.catalog import Catalog
from depth_train.scenes.models.lighting import render
from depth_train.scenes.models.tracing import World
from depth_train.scenes.models.views import choose_view

# How often each place is drawn.
PLACES = (
    (indoors.room, 0.26),
    (indoors.desk, 0.13),
    (indoors.hall, 0.10),
    (indoors.level, 0.08),
    (close_ups.close_up, 0.10),
    (outdoors.street, 0.19),
    (outdoors.park, 0.09),
    (outdoors.yard, 0.05),
)
SAMPLES = 2  # rays a pixel


@dataclass(frozen=True)
class RenderedView:
    """What one camera saw.

    Attributes:
        radiance: float16 `[T, H, W, 3]`, linear light.
        depth_m: float32 `[T, H, W]`, planar depth at pixel centres, inf where the sky is.
        K: float64 `[3, 3]`.
        world_from_camera: float64 `[T, 4, 4]`.
        place: Name of the kind of place.
        motion: Name of the camera's motion.
    """

    radiance: np.ndarray
    depth_m: np.ndarray
    K: np.ndarray
    world_from_camera: np.ndarray
    place: str
    motion: str


def build_place(seed: int, catalog: Catalog, cache: Path) -> tuple[Place, str, Builder]:
    """The place of a seed, the name of its kind, and the builder that knows which files did not load."""
    rng = np.random.default_rng([seed, 71])
    kinds, weights = zip(*PLACES, strict=True)
    kind = kinds[int(rng.choice(len(kinds), p=np.array(weights) / sum(weights)))]
    builder = Builder(rng, catalog, cache)
    return kind(builder), kind.__name__, builder


def render_views(
    seed: int, catalog: Catalog, cache: Path, views: int, frames: int = 1, samples: int = SAMPLES
) -> Iterator[tuple[RenderedView, dict[str, str]]]:
    """Make a scene and look at it.

    Args:
        seed: Decides everything.
        catalog: Models and pictures to draw from.
        cache: Folder of prepared models.
        views: Cameras at the most; fewer where a place offers no free stand.
        frames: Frames of each.
        samples: Rays a pixel.

    Yields:
        Each view, with the files so far that did not load (name -> reason).
    """
    place, kind, builder = build_place(seed, catalog, cache)
    if not place.stands:
        return
    world = World(place.still, [mover.mesh for mover in place.movers])
    rng = np.random.default_rng([seed, 72])
    for number in range(views):
        view = choose_view(place, world, frames, rng)
        if view is None:
            continue
        radiance = np.empty((frames, *view.size, 3), dtype=np.float16)
        depth_m = np.empty((frames, *view.size), dtype=np.float32)
        for time in range(frames):
            if place.movers:
                world.place([mover.pose(time) for mover in place.movers])
            keyed = int(np.random.SeedSequence([seed, number, time]).generate_state(1)[0])
            light, depth = render(world, place.light, view.K, view.world_from_camera[time], view.size, samples, keyed)
            radiance[time], depth_m[time] = np.clip(np.nan_to_num(light), 0, 60000), depth
        yield RenderedView(radiance, depth_m, view.K, view.world_from_camera, kind, view.motion), builder.bad
