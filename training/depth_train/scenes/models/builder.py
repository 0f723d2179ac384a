"""What the places are built with: materials, models by their role, free ground, light."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from depth_train.scenes.models import shapes, textures
from depth_train.scenes.models.catalog import Catalog, Model
from depth_train.scenes.models.lighting import Lamp, Light
from depth_train.scenes.models.meshes import Mesh, Surface, load_model, load_texture, to_linear


@dataclass(frozen=True)
class Stand:
    """Where a camera may be, and what it looks at.

    Attributes:
        x: Least and greatest x, metres.
        z: Least and greatest z.
        height: Least and greatest height above the ground.
        pitch: Mean and deviation in radians, negative looks down.
        targets: Points `[n, 3]` of which one is looked at, or None: any direction.
        yaw: Mean and deviation of the direction where there is no target; a deviation of 10 is any.
        motions: Names of the camera motions that suit the place.
    """

    x: tuple[float, float]
    z: tuple[float, float]
    height: tuple[float, float]
    pitch: tuple[float, float] = (-0.1, 0.2)
    targets: np.ndarray | None = None
    yaw: tuple[float, float] = (0.0, 10.0)
    motions: tuple[str, ...] = ("hand", "walk", "pan", "orbit", "crane")


@dataclass(frozen=True)
class Mover:
    """A thing that moves.

    Attributes:
        mesh: About its own origin.
        position: `[3]` at time 0.
        yaw: Radians; it moves forward along this.
        speed: Metres a frame.
        sway: Amplitude in radians of a turn to and fro about the vertical.
        rate: Radians of phase a frame.
    """

    mesh: Mesh
    position: tuple[float, float, float]
    yaw: float
    speed: float
    sway: float
    rate: float

    def pose(self, time: float) -> np.ndarray:
        """world_from_thing `[4, 4]` at a time in frames."""
        pose = np.eye(4)
        pose[:3, :3] = shapes.turn_y(self.yaw + self.sway * math.sin(self.rate * time))
        pose[:3, 3] = self.position + shapes.turn_y(self.yaw)[:, 2] * -self.speed * time
        return pose


@dataclass
class Place:
    """All of a scene but the camera."""

    still: list[Mesh]
    movers: list[Mover]
    light: Light
    stands: list[Stand]


@functools.lru_cache(maxsize=512)
def _texture(path: Path, largest: int = 512) -> np.ndarray:
    return load_texture(path, largest)


@functools.lru_cache(maxsize=512)
def _opaque(path: Path) -> np.ndarray:
    """A picture as a wall shows it: without holes."""
    texture = _texture(path).copy()
    texture[..., 3] = 255
    return texture


@functools.lru_cache(maxsize=160)
def _mesh(model: Model, cache: Path) -> Mesh:
    return load_model(model, cache)


@dataclass
class Builder:
    """Collects a place.

    Attributes:
        rng: All draws.
        catalog: Models and pictures to draw from; may lack any of them.
        cache: Folder of prepared models.
        indoor: Lit by lamps and windows rather than by the sky.
        bad: Files that did not load: name -> reason.
    """

    rng: np.random.Generator
    catalog: Catalog
    cache: Path
    indoor: bool = False
    bad: dict[str, str] = field(default_factory=dict)
    still: list[Mesh] = field(default_factory=list)
    movers: list[Mover] = field(default_factory=list)
    lamps: list[Lamp] = field(default_factory=list)
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    def chance(self, share: float) -> bool:
        """True in this share of calls."""
        return bool(self.rng.random() < share)

    def uniform(self, low: float, high: float) -> float:
        """A number between the two."""
        return float(self.rng.uniform(low, high))

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, options: list | tuple):
        """One of several."""
        return options[int(self.rng.integers(len(options)))]

    # Materials

    def plain(self, low: float = 0.1, high: float = 0.9, saturation: float = 0.6, gloss: float = 0.0) -> Surface:
        """One colour."""
        shade = to_linear(textures.color(self.rng, low, high, saturation))
        return Surface((float(shade[0]), float(shade[1]), float(shade[2])), gloss=gloss)

    def painted(self, paint: Callable | None = None, tile_m: float | None = None, gloss: float = 0.0) -> Surface:
        """A painted texture."""
        paint = paint or self.pick(textures.PLAIN)
        side = tile_m or self.uniform(0.3, 2.5)
        return Surface((0.95, 0.95, 0.95), paint(self.rng), gloss=gloss, tile_m=(side, side))

    def surface(self, role: str, plain: float = 0.3, gloss: float | None = None) -> Surface:
        """What covers a floor, a wall, a ground or a roof: a photograph, a painted texture, or one colour."""
        shine = gloss if gloss is not None else (self.uniform(0.05, 0.5) if self.chance(0.25) else 0.0)
        if self.chance(plain):
            return self.plain(0.25, 0.95, 0.35, shine)
        pictures = [p for p in self.catalog.pictures if p.role == role]
        if pictures and self.chance(0.6):
            picture = self.pick(pictures)
            try:
                texture = _opaque(picture.path)
                side = self.uniform(0.8, 3.0)
                size = picture.size_m or (side, side)
                tint = np.clip(self.rng.normal(0.9, 0.12, 3), 0.4, 1.0) * self.uniform(0.6, 1.0)
                return Surface((float(tint[0]), float(tint[1]), float(tint[2])), texture, gloss=shine, tile_m=size)
            except ValueError as error:
                self.bad[picture.name] = str(error)
        paints = {
            "floor": (textures.cells, textures.wood, textures.grain, textures.mottled, textures.stripes),
            "wall": (textures.grain, textures.grain, textures.cells, textures.stripes, textures.wood),
            "ground": (textures.grain, textures.mottled, textures.grass, textures.grain, textures.cells),
            "roof": (textures.cells, textures.grain),
        }
        return self.painted(self.pick(paints.get(role, textures.PLAIN)), gloss=shine)

    def picture(self, roles: tuple[str, ...], opaque: bool = True) -> np.ndarray | None:
        """A picture of one of the roles, uint8 `[h, w, 4]`, or None if there is none that loads."""
        fitting = [p for p in self.catalog.pictures if p.role in roles and p.name not in self.bad]
        if not fitting:
            return None
        picture = self.pick(fitting)
        try:
            return _opaque(picture.path) if opaque else _texture(picture.path)
        except ValueError as error:
            self.bad[picture.name] = str(error)
            return None

    def photo(self) -> Surface:
        """A picture to hang, to show on a screen, to stand far behind: one repeat is one metre."""
        pictures = [p for p in self.catalog.pictures if p.role in ("photo", "sky")]
        if pictures and self.chance(0.7):
            picture = self.pick(pictures)
            try:
                texture = _opaque(picture.path)
                if self.chance(0.6):  # a part of it is another picture
                    height, width = texture.shape[:2]
                    cut_h, cut_w = self.whole(height // 4, height), self.whole(width // 4, width)
                    top, left = self.whole(0, height - cut_h), self.whole(0, width - cut_w)
                    texture = np.ascontiguousarray(texture[top : top + cut_h, left : left + cut_w])
                return Surface((0.9, 0.9, 0.9), texture)
            except ValueError as error:
                self.bad[picture.name] = str(error)
        return Surface((0.9, 0.9, 0.9), textures.print_(self.rng))

    # Models

    def model(self, roles: tuple[str, ...], fits: Callable[[Model], bool] | None = None) -> tuple[Mesh, Model] | None:
        """A model of one of the roles, perhaps recoloured, or None if there is none that loads."""
        fitting = [m for m in self.catalog.models if m.role in roles and (fits is None or fits(m))]
        for _ in range(3):
            if not fitting:
                return None
            model = self.pick(fitting)
            if model.name in self.bad:
                continue
            try:
                mesh = _mesh(model, self.cache)
            except ValueError as error:
                self.bad[model.name] = str(error)
                continue
            if self.chance(0.45):
                mesh = self.recoloured(mesh)
            return mesh, model
        return None

    def recoloured(self, mesh: Mesh) -> Mesh:
        """The mesh in other colours; plain ones may get a pattern."""
        surfaces = []
        shift = np.clip(self.rng.normal(1, 0.35, 3), 0.3, 2.0)
        for surface in mesh.surfaces:
            if surface.texture is None and surface.opacity > 0.9 and self.chance(0.6):
                surface = replace(self.plain(0.05, 0.95, 1.0), gloss=surface.gloss)
            else:
                tinted = np.clip(np.array(surface.color) * shift, 0.02, 0.98)
                surface = replace(surface, color=(float(tinted[0]), float(tinted[1]), float(tinted[2])))
            surfaces.append(surface)
        return mesh.painted(tuple(surfaces))

    def put(self, mesh: Mesh, x: float, z: float, yaw: float = 0.0, up: float = 0.0, scale: float = 1.0) -> Mesh:
        """Stand a mesh on the ground, or `up` metres above it."""
        placed = mesh.moved(shapes.turn_y(yaw), (x, -up, z), scale)
        self.still.append(placed)
        return placed

    def put_free(
        self,
        roles: tuple[str, ...],
        x: tuple[float, float],
        z: tuple[float, float],
        fits: Callable[[Model], bool] | None = None,
    ) -> Mesh | None:
        """Stand a model somewhere in a rectangle where nothing stands yet, facing anywhere."""
        found = self.model(roles, fits)
        if found is None:
            return None
        mesh, model = found
        extent = mesh.bounds[1] - mesh.bounds[0]
        radius = 0.5 * float(np.hypot(extent[0], extent[2])) * 0.8
        for _ in range(8):
            at_x, at_z = self.uniform(*x), self.uniform(*z)
            if self.is_free(at_x, at_z, radius):
                self.taken.append((at_x, at_z, radius))
                return self.put(
                    mesh, at_x, at_z, self.uniform(0, 2 * math.pi), model.elevation_m, self.uniform(0.9, 1.1)
                )
        return None

    def is_free(self, x: float, z: float, radius: float) -> bool:
        """Whether nothing stands within a circle."""
        return all(math.hypot(x - a, z - b) > radius + r for a, b, r in self.taken)

    def load_up(self, x: tuple[float, float], z: tuple[float, float], height: float, count: int) -> None:
        """Put small things on a surface: models, books, boxes, cups, papers."""
        for _ in range(count):
            at_x, at_z, yaw = self.uniform(*x), self.uniform(*z), self.uniform(0, 2 * math.pi)
            if self.chance(0.55):
                found = self.model(
                    ("prop",), lambda m: m.size_m is not None and max(m.size_m) < 0.55 and m.elevation_m == 0
                )
                if found is not None:
                    self.put(found[0], at_x, at_z, yaw, height)
                    continue
            kind = self.whole(0, 4)
            if kind == 0:  # a pile of books
                up = height
                for _ in range(self.whole(1, 5)):
                    thick = self.uniform(0.01, 0.05)
                    cover = self.painted(textures.print_) if self.chance(0.5) else self.plain(0.05, 0.95, 1.0)
                    size = (self.uniform(0.12, 0.22), thick, self.uniform(0.17, 0.3))
                    self.still.append(
                        shapes.box((at_x, -up - thick / 2, at_z), size, cover, yaw + self.uniform(-0.2, 0.2), True)
                    )
                    up += thick
            elif kind == 1:
                size = (self.uniform(0.04, 0.3), self.uniform(0.03, 0.3), self.uniform(0.04, 0.3))
                cover = self.painted(textures.print_) if self.chance(0.5) else self.plain(0.1, 0.9, 0.8, 0.1)
                self.still.append(shapes.box((at_x, -height - size[1] / 2, at_z), size, cover, yaw, True))
            elif kind == 2:
                radius, tall = self.uniform(0.02, 0.06), self.uniform(0.06, 0.3)
                cover = self.painted(textures.print_) if self.chance(0.3) else self.plain(0.05, 0.95, 0.8, 0.4)
                self.still.append(
                    shapes.cylinder((at_x, -height, at_z), radius, tall, cover, radius * self.uniform(0.5, 1.1))
                )
            elif kind == 3:  # a sheet of paper
                cover = self.painted(textures.print_) if self.chance(0.6) else self.plain(0.7, 0.98, 0.1)
                size = (self.uniform(0.1, 0.25), 0.002, self.uniform(0.15, 0.3))
                self.still.append(shapes.box((at_x, -height - 0.002, at_z), size, cover, yaw, True))
            else:
                radius = self.uniform(0.03, 0.12)
                self.still.append(
                    shapes.ball((at_x, -height - radius, at_z), (radius,) * 3, self.plain(0.1, 0.9, 1.0, 0.2))
                )

    # Light

    def daylight(self) -> Light:
        """Sun and sky of some hour and weather."""
        sky_pictures = [p for p in self.catalog.pictures if p.role == "sky"]
        elevation = math.radians(self.pick((self.uniform(3, 20), self.uniform(15, 75), self.uniform(30, 70))))
        azimuth = self.uniform(0, 2 * math.pi)
        to_sun = (
            math.cos(elevation) * math.sin(azimuth),
            -math.sin(elevation),
            math.cos(elevation) * math.cos(azimuth),
        )
        warm = np.array([1.0, 0.75 + 0.2 * math.sin(elevation), 0.5 + 0.42 * math.sin(elevation)])
        overcast = self.chance(0.35)
        cloud = self.uniform(0.75, 1.0) if overcast else self.pick((0.0, self.uniform(0.1, 0.6)))
        sun = warm * (self.uniform(0.0, 0.4) if overcast else self.uniform(2.0, 7.0))
        horizon = np.array([0.85, 0.92, 1.0]) * self.uniform(0.6, 1.3)
        zenith = np.array([0.35, 0.55, 1.0]) * self.uniform(0.4, 0.9)
        if overcast:
            zenith = np.array([0.9, 0.95, 1.0]) * self.uniform(0.4, 1.0)
        if self.chance(0.06):  # night or dusk
            sun, zenith, horizon = sun * 0.01, zenith * 0.03, horizon * 0.04
        haze = self.pick((math.inf, self.uniform(300, 3000), self.uniform(40, 400))) if self.chance(0.4) else math.inf
        photo = None
        if sky_pictures and self.chance(0.25):
            try:
                photo = to_linear(_texture(self.pick(sky_pictures).path)[..., :3] / 255).astype(np.float32)
            except ValueError:
                photo = None
        ground = horizon * self.uniform(0.1, 0.35)
        bounce = (zenith + horizon) * 0.12 + sun * 0.03
        return Light(
            three(to_sun),
            three(sun),
            three(zenith),
            three(horizon),
            three(ground),
            cloud,
            three(bounce),
            haze,
            self.lamps,
            photo,
        )

    def roomlight(self, sunny: bool) -> Light:
        """Light within walls: lamps, what comes in by windows, what bounces about."""
        outside = self.daylight()
        level = self.uniform(0.06, 0.4)
        warm = np.array([1.0, self.uniform(0.8, 1.0), self.uniform(0.6, 1.05)])
        sun = np.array(outside.sun) * (1.0 if sunny else 0.0)
        return replace(outside, ambient=three(warm * level), sun=three(sun), haze_m=math.inf, lamps=self.lamps)


def three(values: object) -> tuple[float, float, float]:
    """Three numbers as plain floats."""
    a, b, c = (float(v) for v in values)  # type: ignore[attr-defined]
    return a, b, c
