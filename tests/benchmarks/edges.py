"""What `--edge` and `--sharpen` do to the borders of things, on scenes whose every view is known.

    python -m tests.benchmarks.edges

A disc or a sphere, antialiased, hangs before a wall; both are painted: plain, softly, finely, or with the same paint.
`--edge`: the camera moves sideways, with the true depth, and holes are filled; counted are the pixels around where the
thing was that are more than 40 of 255 off the true new view, which is what a dotted outline is made of. `--sharpen`:
depth is blurred and pushed aside as a network's is; counted are the pixels within five of the border whose depth is
more than 10 % off, as given, then sharpened; and the same for depth that was right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import click
import cv2
import numpy as np
from novel_view.views.rendering import Borders
from novel_view.warp.edges import sharpen_borders
from novel_view.warp.fill import fill_spatial
from novel_view.warp.reproject import warp

from depth_engine.geometry.cameras import Camera, intrinsics

_FINER = 6  # samples along each side of a pixel
_NEAR, _FAR = 2.0, 6.0
_RADIUS = 0.45  # of the thing, in the unit of depth
_SHIFT = 0.12  # of the camera, likewise: 6 % of the nearer distance
_OFF = 40  # of 255, beyond which a pixel is seen to be wrong
_ZONE_PX, _DEPTH_OFF = 5, 0.1
_BLUR_PX, _ASIDE_PX = 1.5, 1.0  # of made-up depth

Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Scene(NamedTuple):
    """What is painted on the thing and on the wall."""

    name: str
    thing: Paint
    wall: Paint


def plain(red: float, green: float, blue: float) -> Paint:
    """One colour."""
    return lambda u, v: np.broadcast_to(np.array([red, green, blue]), (*u.shape, 3))


def noise(seed: int, size: float, contrast: float, middle: float = 128.0) -> Paint:
    """Blots of this size (in the unit of depth), in all colours."""
    field = np.random.default_rng(seed).normal(size=(256, 256, 3)).astype(np.float32)
    field = cv2.GaussianBlur(field, (0, 0), 1.5)
    field *= contrast / field.std()

    def paint(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        columns, rows = (np.mod(part / size * 3, 255).astype(np.float32) for part in (u, v))
        return np.clip(middle + cv2.remap(field, columns, rows, cv2.INTER_LINEAR), 0, 255)

    return paint


SCENES = (
    Scene("plain before plain", plain(220, 60, 40), plain(60, 110, 190)),
    Scene("plain before soft", plain(220, 60, 40), noise(1, 0.5, 35)),
    Scene("plain before fine", plain(220, 60, 40), noise(1, 0.06, 35)),
    Scene("soft before soft", noise(2, 0.2, 25, 190), noise(1, 0.5, 25, 80)),
    Scene("fine before fine", noise(2, 0.02, 35, 150), noise(1, 0.06, 35, 110)),
    Scene("the same paint", noise(2, 0.1, 35), noise(1, 0.3, 35)),
)


def seen(scene: Scene, sphere: bool, x: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Picture uint8 `[H, W, 3]` and planar depth `[H, W]` at pixel centres, of a camera at `x`."""
    height, width = size
    K = intrinsics(50, height, width)
    rows, columns = np.mgrid[0 : height * _FINER, 0 : width * _FINER]
    u, v = ((columns + 0.5) / _FINER - K[0, 2]) / K[0, 0], ((rows + 0.5) / _FINER - K[1, 2]) / K[1, 1]
    wall = scene.wall(x + _FAR * u, _FAR * v)
    if sphere:  # |s (u, v, 1) - c| = r, the nearer solution
        a, b, c = u * u + v * v + 1, -x * u + _NEAR, x * x + _NEAR**2 - _RADIUS**2
        root = b * b - a * c
        inside, z = root > 0, (b - np.sqrt(np.maximum(root, 0))) / a
    else:
        z = np.full(u.shape, _NEAR)
        inside = (x + z * u) ** 2 + (z * v) ** 2 < _RADIUS**2
    fine = np.where(inside[..., None], scene.thing(x + z * u, z * v), wall)
    picture = fine.reshape(height, _FINER, width, _FINER, 3).mean((1, 3))
    depth = np.where(inside, z, _FAR)[_FINER // 2 :: _FINER, _FINER // 2 :: _FINER]
    return np.rint(picture).astype(np.uint8), depth.astype(np.float32)


def _rim(thing: np.ndarray, reach_px: int) -> np.ndarray:
    """Pixels within reach of the border of a thing, bool `[H, W]`."""
    around = np.ones((2 * reach_px + 1,) * 2, np.uint8)
    return cv2.dilate(thing, around) != cv2.erode(thing, around)


def outline_px(scene: Scene, sphere: bool, edge: bool, size: tuple[int, int]) -> int:
    """Pixels of the new view around where the thing was that are seen to be wrong."""
    height, width = size
    rgb, depth = seen(scene, sphere, 0.0, size)
    true, _ = seen(scene, sphere, _SHIFT, size)
    K, moved = intrinsics(50, height, width), np.eye(4)
    moved[0, 3] = _SHIFT
    source, target = Camera(K, np.eye(4), height, width), Camera(K, moved, height, width)
    mended = Borders(sharpen=False, edge=edge).mended(depth, rgb)
    view = fill_spatial(warp(rgb, mended, source, target, antialias=True))
    # The wall moves by much less than the thing does: what was behind the rim lies beside it now.
    thing, aside = (depth < _FAR).astype(np.uint8), np.array([[1, 0, -_SHIFT * K[0, 0] / _FAR], [0, 1, 0]])
    was = cv2.warpAffine(thing, aside, size[::-1])
    rim = _rim(was, 4)
    wrong = np.abs(view.rgb.astype(int) - true).max(axis=2) > _OFF
    return int((wrong & rim).sum())


def off_percent(scene: Scene, sphere: bool, made_up: bool, size: tuple[int, int]) -> tuple[float, float]:
    """Share of the pixels near the border whose depth is wrong, as given and sharpened."""
    rgb, true = seen(scene, sphere, 0.0, size)
    given = true
    if made_up:
        aside = np.array([[1, 0, _ASIDE_PX], [0, 1, 0]])
        pushed = cv2.warpAffine(1 / true, aside, size[::-1], borderMode=cv2.BORDER_REPLICATE)
        given = 1 / cv2.GaussianBlur(pushed, (0, 0), _BLUR_PX)
    thing = (true < _FAR).astype(np.uint8)
    zone = _rim(thing, _ZONE_PX)
    before, after = (np.abs(depth / true - 1) > _DEPTH_OFF for depth in (given, sharpen_borders(given, rgb)))
    return 100 * float(before[zone].mean()), 100 * float(after[zone].mean())


def figures(scenes: tuple[Scene, ...], size: tuple[int, int]) -> Iterator[str]:
    """Lines of a table."""
    heads = ("outline, px: --no-edge, --edge", "depth off, %: made up, sharpened", "right, sharpened")
    yield f"{'scene':<28}{heads[0]:>32}{heads[1]:>36}{heads[2]:>20}"
    for scene in scenes:
        for sphere in (False, True):
            without, within = (outline_px(scene, sphere, edge, size) for edge in (False, True))
            made, right = (off_percent(scene, sphere, made_up, size) for made_up in (True, False))
            name = f"{'sphere' if sphere else 'disc'}, {scene.name}"
            depth = f"{made[0]:>24.1f}{made[1]:>12.1f}{right[0]:>10.1f}{right[1]:>10.1f}"
            yield f"{name:<28}{without:>20}{within:>12}{depth}"


@click.command()
@click.option("--height", default=360, show_default=True, help="Of the pictures, pixels.")
@click.option("--scenes", default=len(SCENES), show_default=True, help="How many of them.")
def main(height: int, scenes: int) -> None:
    """Print what both options do to borders."""
    for line in figures(SCENES[:scenes], (height, height * 16 // 9)):
        click.echo(line)


if __name__ == "__main__":
    main()
