"""How fast a 1080p frame is seen from another camera, against a plain torch z-buffer splat and a plain copy.

    python -m tests.benchmarks.warp_speed

Both take the same picture, depth and cameras (6 degrees of freedom) and write colour and depth of the new view, on the
same number of threads, in turns. The peer is the textbook one: every pixel is unprojected, moved and projected, and
`scatter_reduce(amin)` keeps the nearest depth of each target pixel, a second pass its colour. To cover what this
project's footprints cover (no cracks where surfaces are magnified) it draws each pixel as the square of target pixels
that its footprint needs, as many as the largest magnification in the frame asks for; `--single` draws one pixel each,
with the cracks that this leaves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import click
import numba
import numpy as np
import torch
from novel_view.warp.reproject import warp

from depth_engine.geometry.cameras import Camera, intrinsics, look_at

HEIGHT, WIDTH = 1080, 1920


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Noise on a floor, a back wall and columns at several depths: slants, magnification and borders."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    rows = np.linspace(-1, 1, HEIGHT)[:, None] * 0.6
    with np.errstate(divide="ignore"):
        floor = np.where(rows > 0.02, 1.0 / np.maximum(rows, 0.02), 50.0)
    depth = np.minimum(floor, 9.0) + np.zeros((1, WIDTH))
    for column in range(100, WIDTH - 100, 260):
        depth[200:900, column : column + 90] = 2.0 + column / WIDTH * 3
    return rgb, depth.astype(np.float32)


def cameras() -> tuple[Camera, Camera]:
    """Two cameras that differ in place and in direction."""
    K = intrinsics(50, HEIGHT, WIDTH)
    moved = look_at(np.array([0.25, -0.1, 0.3]), np.array([0.2, 0.1, 5.0]), np.array([0.05, 1.0, 0.0]))
    return Camera(K, np.eye(4), HEIGHT, WIDTH), Camera(K, moved, HEIGHT, WIDTH)


def splat(rgb: torch.Tensor, depth: torch.Tensor, source: Camera, target: Camera, side: int) -> torch.Tensor:
    """The peer: `[H, W, 3]` uint8."""
    target_from_source = torch.from_numpy(np.linalg.inv(target.world_from_camera) @ source.world_from_camera).float()
    turn = (
        torch.from_numpy(target.K).float()
        @ target_from_source[:3, :3]
        @ torch.from_numpy(np.linalg.inv(source.K)).float()
    )
    shift = torch.from_numpy(target.K).float() @ target_from_source[:3, 3]
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    points = (rays @ turn.T) * depth[..., None] + shift
    z = points[..., 2]
    column, row = (points[..., 0] / z).floor().long(), (points[..., 1] / z).floor().long()
    nearest = torch.full((HEIGHT * WIDTH,), torch.inf)
    places = []
    for dy in range(side):
        for dx in range(side):
            r, c = row + dy - side // 2, column + dx - side // 2
            inside = (r >= 0) & (r < HEIGHT) & (c >= 0) & (c < WIDTH) & (z > 0)
            place = (r * WIDTH + c)[inside]
            places.append((inside, place))
            nearest.scatter_reduce_(0, place, z[inside], "amin")
    out = torch.zeros((HEIGHT * WIDTH, 3), dtype=torch.uint8)
    for inside, place in places:
        wins = z[inside] <= nearest[place]
        out[place[wins]] = rgb[inside][wins]
    return out.reshape(HEIGHT, WIDTH, 3)


def best_ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


@click.command()
@click.option("--rounds", default=7, show_default=True, help="Turns; the median of each is compared.")
@click.option("--threads", default=os.cpu_count(), show_default=True)
@click.option("--single", is_flag=True, help="The peer draws one pixel for each, and leaves cracks.")
def main(rounds: int, threads: int, single: bool) -> None:
    """Time both in turns."""
    torch.set_num_threads(threads)
    numba.set_num_threads(threads)
    rgb, depth = scene()
    source, target = cameras()
    held_rgb, held_depth = torch.from_numpy(rgb), torch.from_numpy(depth)
    # Magnification: the nearest point comes nearer by 0.3 of 2, so a pixel spans up to 2 x 2 after rounding.
    side = 1 if single else 2
    works: dict[str, Callable[[], object]] = {
        "warp": lambda: warp(rgb, depth, source, target),
        "antialiased": lambda: warp(rgb, depth, source, target, antialias=True),
        "torch splat": lambda: splat(held_rgb, held_depth, source, target, side),
        "copy": lambda: (rgb.copy(), depth.copy()),
    }
    if torch.cuda.is_available():
        works["warp, CUDA"] = lambda: warp(rgb, depth, source, target, device="cuda")
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(best_ms(work))
    median = {name: float(np.median(values)) for name, values in times.items()}
    seen = warp(rgb, depth, source, target)
    plain = splat(held_rgb, held_depth, source, target, side).numpy()
    cracks = (plain.sum(axis=2) == 0) & ~seen.hole
    for name, value in median.items():
        click.echo(f"{name:12s} {value:8.1f} ms")
    click.echo(
        f"warp is {median['torch splat'] / median['warp']:.1f} times as fast as the torch splat ({side}x{side} px)"
    )
    click.echo(f"and takes {median['warp'] / median['copy']:.0f} times a plain copy of the same bytes")
    click.echo(f"holes {seen.hole.mean():.1%}; the splat leaves {cracks.mean():.2%} of the picture as cracks")


if __name__ == "__main__":
    main()
