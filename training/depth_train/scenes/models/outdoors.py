"""Streets, yards, parks, woods, squares: places under the sky."""

from __future__ import annotations

import math

import cv2
import numpy as np

from depth_train.scenes.models import shapes, textures
from depth_train.scenes.models.builder import Builder, Mover, Place, Stand, three
from depth_train.scenes.models.indoors import crates, people
from depth_train.scenes.models.lighting import Lamp
from depth_train.scenes.models.meshes import Surface


def far_background(b: Builder, distance: float = 120.0) -> None:
    """What closes the view: rows of hills, a wood's edge, a skyline, photographs of far land, or nothing."""
    for row in range(b.whole(0, 3)):
        far = distance * b.uniform(0.6, 2.5) * (1 + row)
        kind = b.whole(0, 2)
        if kind == 0:  # hills
            count = 60
            angle = np.linspace(0, 2 * np.pi, count)
            height = sum(b.uniform(0.2, 1) * np.sin(angle * k + b.uniform(0, 6.3)) for k in (2, 3, 5, 9)) + 1.5
            height = np.maximum(height, 0.2) * far * b.uniform(0.03, 0.12)
            cover = b.surface("ground", 0.2)
            cover = Surface(cover.color, cover.texture, tile_m=(40.0, 40.0))
            for i in range(count - 1):
                p, q = (np.array([math.sin(angle[k]) * far, 1.0, math.cos(angle[k]) * far]) for k in (i, i + 1))
                corners = [[p, q, q - [0, height[i + 1], 0]], [p, q - [0, height[i + 1], 0], p - [0, height[i], 0]]]
                uv = [
                    [[p[0], 0], [q[0], 0], [q[0], -height[i + 1]]],
                    [[p[0], 0], [q[0], -height[i + 1]], [p[0], -height[i]]],
                ]
                b.still.append(shapes.mesh_of(np.array(corners), np.array(uv), cover))
        elif kind == 1:  # blocks of houses
            for angle in np.linspace(0, 2 * np.pi, b.whole(10, 40))[:-1]:
                size = (b.uniform(8, 30), b.uniform(5, 35), b.uniform(8, 30))
                at = (math.sin(angle) * far, -size[1] / 2, math.cos(angle) * far)
                b.still.append(shapes.box(at, size, facade_paint(b), angle))
        else:  # trees
            leaves = Surface((0.8, 0.8, 0.8), textures.leaves(b.rng), tile_m=(6.0, 6.0))
            for angle in np.linspace(0, 2 * np.pi, b.whole(40, 120))[:-1]:
                size, reach = b.uniform(4, 14), far * b.uniform(0.8, 1.2)
                at = np.array([math.sin(angle) * reach, 0, math.cos(angle) * reach])
                along = np.array([math.cos(angle), 0, -math.sin(angle)])
                b.still.append(shapes.quad(at - along * size / 2, along * size, (0, -size, 0), leaves))


def facade_paint(b: Builder) -> Surface:
    """A whole house front as a picture: a photograph, or windows in rows on a wall."""
    rng = b.rng
    if b.chance(0.5):
        found = b.picture(("facade",))
        if found is not None:
            side = b.uniform(6, 14)
            return Surface((0.9, 0.9, 0.9), found, tile_m=(side, side))
    image = np.empty((256, 256, 3), dtype=np.float32)
    image[:] = textures.color(rng, 0.3, 0.9, 0.5)
    dark, frame = textures.color(rng, 0.03, 0.3, 0.2), textures.color(rng, 0.3, 0.95, 0.3)
    rows, columns = b.whole(2, 5), b.whole(2, 6)
    for i in range(rows):
        for j in range(columns):
            w, h = 256 / columns, 256 / rows
            x0, y0 = int((j + 0.25) * w), int((i + 0.2) * h)
            x1, y1 = int((j + 0.75) * w), int((i + 0.8) * h)
            image[y0 - 2 : y1 + 2, x0 - 2 : x1 + 2] = frame
            image[y0:y1, x0:x1] = np.clip(dark * rng.uniform(0.5, 2.5), 0, 1)
    image *= (1 + 0.06 * textures._noise(rng, 0.8))[..., None]
    side = b.uniform(6, 14)
    return Surface((0.9, 0.9, 0.9), textures._finish(image), tile_m=(side, side))


def tree(b: Builder, x: float, z: float) -> None:
    """A tree: a model, or a trunk with branches and bunches of leaves; bare in winter."""
    if b.chance(0.45):
        found = b.model(("tree",))
        if found is not None:
            b.put(found[0], x, z, b.uniform(0, 6.3), 0, b.uniform(0.6, 1.6))
            return
    if b.chance(0.3):
        found = b.picture(("tree",), opaque=False)
        if found is not None:  # two cut-outs at right angles
            high = b.uniform(2.5, 11)
            wide = high * found.shape[1] / found.shape[0]
            shade = b.uniform(0.6, 1.0)
            yaw = b.uniform(0, 3)
            for turn in (yaw, yaw + math.pi / 2):
                along = shapes.turn_y(turn)[:, 0]
                cover = Surface((shade, shade, shade), found, tile_m=(wide, high))
                part = shapes.quad(np.array([x, -high, z]) - along * wide / 2, along * wide, (0, high, 0), cover)
                b.still.append(part)
            return
    height, radius = b.uniform(3, 12), b.uniform(0.08, 0.35)
    bark = b.painted(textures.mottled, 0.5) if b.chance(0.6) else b.plain(0.1, 0.45, 0.4)
    lean = b.rng.normal(0, 0.06, 2)
    trunk_top = np.array([x + lean[0] * height, -height * 0.5, z + lean[1] * height])
    b.still.append(shapes.tube(np.linspace([x, 0.1, z], trunk_top, 4), radius, bark))
    bare = b.chance(0.2)
    leaves = Surface(three(b.rng.uniform(0.6, 1.0, 3)), textures.leaves(b.rng))
    crown = b.uniform(0.2, 0.4) * height
    for _ in range(b.whole(6, 16)):
        direction = b.rng.normal(0, 1, 3) * [1, 0.6, 1]
        end = trunk_top + direction * crown * 0.6 + [0, -crown * 0.6, 0]
        begin = np.array([x, 0, z]) + (trunk_top - [x, 0, z]) * b.uniform(0.6, 1.0)
        b.still.append(shapes.tube(np.linspace(begin, end, 3), radius * 0.25, bark))
        if not bare:
            for _ in range(3):
                size = crown * b.uniform(0.5, 1.1)
                u, v, _ = np.linalg.qr(b.rng.normal(size=(3, 3)))[0]
                centre = end + b.rng.normal(0, crown * 0.2, 3)
                part = shapes.quad(
                    centre - (u + v) * size / 2,
                    u * size,
                    v * size,
                    Surface(leaves.color, leaves.texture, tile_m=(size, size)),
                )
                b.still.append(part)


def house_front(b: Builder, x: float, z: float, length: float, height: float, facing: int) -> None:
    """A front along z at x, towards the street (`facing` 1: it looks to +x), windows and doors set into it."""
    if b.chance(0.25):  # a photographed front, flat
        found = b.picture(("facade",))
        if found is not None:
            cover = Surface((0.9, 0.9, 0.9), found, tile_m=(length / max(1, round(length / 9)), height))
            b.still.append(
                shapes.quad(
                    (x, -height, z if facing < 0 else z + length),
                    (0, 0, length * (1 if facing < 0 else -1)),
                    (0, height, 0),
                    cover,
                )
            )
            b.still.append(
                shapes.box(
                    (x - facing * 4, -height / 2, z + length / 2), (7.9, height, length - 0.1), b.surface("wall", 0.5)
                )
            )
            return
    cover, frame = b.surface("wall", 0.35), b.plain(0.3, 0.95, 0.3)
    storey, bay = b.uniform(2.7, 3.8), b.uniform(1.6, 4.0)
    window = b.uniform(0.7, min(2.2, bay - 0.4)), b.uniform(1.1, min(2.1, storey - 0.6))
    holes = []
    glass = Surface((0.03, 0.035, 0.04), gloss=1.0)
    lit = Surface((1.0, 0.85, 0.6), emission=0.6)
    for floor in range(int(height // storey)):
        ground_floor = floor == 0
        for k in range(int(length // bay)):
            left = k * bay + (bay - window[0]) / 2
            if ground_floor and b.chance(0.25):
                holes.append((left, 0.0, window[0], min(2.3, storey - 0.3)))
            elif b.chance(0.95):
                holes.append((left, floor * storey + 0.9, window[0], window[1]))
    start, end = ((x, z), (x, z + length)) if facing < 0 else ((x, z + length), (x, z))
    b.still += shapes.wall(start, end, height, cover, holes, 0.22, frame)
    sign = 1 if facing < 0 else -1
    origin_z = z if facing < 0 else z + length
    shop = b.chance(0.3)
    for left, bottom, wide, high in holes:
        back = x - facing * b.uniform(0.1, 0.2)
        pane = lit if b.chance(0.05) else (b.photo() if shop and bottom < 1.5 and b.chance(0.4) else glass)
        if bottom == 0.0:
            pane = b.plain(0.05, 0.8, 0.6, 0.1)
        b.still.append(shapes.quad((back, -bottom, origin_z + sign * left), (0, 0, sign * wide), (0, -high, 0), pane))
        for share in (0.5,) if b.chance(0.7) else (0.33, 0.66):
            at = origin_z + sign * (left + share * wide)
            b.still.append(shapes.box((back + facing * 0.02, -bottom - high / 2, at), (0.04, high, 0.05), frame))
        if bottom > 1 and b.chance(0.06):  # a balcony
            slab = (x + facing * 0.5, -bottom + 0.1, origin_z + sign * (left + wide / 2))
            b.still.append(shapes.box(slab, (1.0, 0.12, wide + 0.6), cover))
            b.still.append(
                shapes.box((slab[0] + facing * 0.48, slab[1] - 0.5, slab[2]), (0.04, 0.9, wide + 0.6), frame)
            )
    depth = b.uniform(5, 12)
    for at in (z, z + length):
        b.still.append(shapes.quad((x, 0, at), (-facing * depth, 0, 0), (0, -height, 0), cover))
    if b.chance(0.6):  # a roof
        rise = b.uniform(1.5, 4)
        b.still.append(
            shapes.quad(
                (x + facing * 0.4, -height + 0.1, z - 0.2),
                (0, 0, length + 0.4),
                (-facing * depth / 2, -rise, 0),
                b.surface("roof", 0.2),
            )
        )
    if b.chance(0.4):
        b.still.append(
            shapes.box(
                (x + facing * 0.15, -b.uniform(2.6, 3.4), z + length / 2),
                (0.2, b.uniform(0.3, 0.8), length * b.uniform(0.3, 0.9)),
                b.photo(),
                0,
                True,
            )
        )


def street(b: Builder) -> Place:
    """A street: rows of fronts, kerbs, parked and driving cars, trees, lamps, signs, people."""
    lane, walk, length = b.uniform(5, 14), b.uniform(1.2, 4.5), 110.0
    road, pavement = b.surface("ground", 0.35), b.surface("floor", 0.3)
    asphalt = Surface(three(b.rng.uniform(0.05, 0.3, 1).repeat(3)), textures.grain(b.rng), tile_m=(3.0, 3.0))  # type: ignore[arg-type]
    road = asphalt if b.chance(0.7) else road
    b.still.append(shapes.quad((-150, 0.02, -40), (300, 0, 0), (0, 0, 250), b.surface("ground", 0.3)))
    b.still.append(shapes.quad((-lane / 2, 0, -40), (lane, 0, 0), (0, 0, length + 60), road))
    paint = b.plain(0.75, 0.98, 0.1)
    if b.chance(0.7):
        for z in np.arange(-30, length, 6.0):
            b.still.append(shapes.quad((-0.07, -0.004, z), (0.14, 0, 0), (0, 0, b.pick((3.0, 6.0))), paint))
    if b.chance(0.3):
        z = b.uniform(4, 25)
        for x in np.arange(-lane / 2 + 0.3, lane / 2 - 0.3, 1.0):
            b.still.append(shapes.quad((x, -0.005, z), (0.5, 0, 0), (0, 0, 3.0), paint))
    built = b.pick((0.95, 0.95, 0.6, 0.2))
    for side in (-1, 1):
        kerb = side * (lane / 2 + walk / 2)
        b.still.append(shapes.box((kerb, -0.06, length / 2 - 20), (walk, 0.12, length + 40), pavement))
        z, x = -25.0, side * (lane / 2 + walk + b.pick((0.0, 0.0, b.uniform(1, 8))))
        while z < length:
            long, high = b.uniform(5, 22), b.uniform(3, 18)
            if b.chance(built):
                house_front(b, x, z, long, high, -side)
            elif b.chance(0.6):
                hedge = b.painted(textures.grass, 0.6) if b.chance(0.5) else b.surface("wall", 0.4)
                b.still.append(shapes.box((x, -0.7, z + long / 2), (0.5, b.uniform(0.8, 2.2), long), hedge))
            if not b.chance(built):
                tree(b, x + side * b.uniform(1, 6), z + b.uniform(0, long))
            z += long + (0 if b.chance(0.6) else b.uniform(1, 8))
        for z in np.arange(b.uniform(-8, 4), 60, b.uniform(8, 20)):  # by the kerb
            kind = b.whole(0, 4)
            at = side * (lane / 2 + b.uniform(0.2, 0.6))
            if kind == 0:
                tree(b, at, z)
            elif kind == 1:
                tall = b.uniform(3.5, 8)
                post = b.plain(0.05, 0.6, 0.2, 0.3)
                b.still.append(shapes.cylinder((at, 0, z), 0.07, tall, post))
                b.still.append(shapes.box((at - side * 0.6, -tall, z), (1.3, 0.12, 0.25), post))
            elif kind == 2:
                tall = b.uniform(1.8, 3)
                b.still.append(shapes.cylinder((at, 0, z), 0.03, tall, b.plain(0.3, 0.7, 0.1, 0.3)))
                b.still.append(shapes.box((at, -tall, z), (0.55, 0.55, 0.03), b.painted(textures.print_), 0, True))
            elif kind == 3:
                for k in range(b.whole(2, 6)):
                    b.still.append(
                        shapes.cylinder((at, 0, z + 1.4 * k), 0.06, b.uniform(0.6, 1.1), b.plain(0.1, 0.7, 0.3))
                    )
            else:
                found = b.model(("street", "street_lamp"), lambda m: m.size_m is not None and max(m.size_m) < 4)
                if found is not None:
                    b.put(found[0], at + side * 0.5, z, b.uniform(0, 6.3))
        z = b.uniform(-8, 2)
        parked = b.pick((0.85, 0.5, 0.1))
        while z < 70:
            if b.chance(parked):
                found = b.model(("car",), lambda m: m.size_m is not None and max(m.size_m) > 2)
                if found is not None:
                    mesh = found[0]
                    extent = mesh.bounds[1] - mesh.bounds[0]
                    yaw = 0.0 if extent[2] > extent[0] else math.pi / 2
                    b.put(
                        mesh,
                        side * (lane / 2 - 1.0 + b.uniform(-0.2, 0.2)),
                        z,
                        yaw + b.pick((0, math.pi)) + b.uniform(-0.05, 0.05),
                    )
            z += b.uniform(4.8, 7.5)
        people(
            b, (min(kerb - walk / 3, kerb + walk / 3), max(kerb - walk / 3, kerb + walk / 3)), (1, 30), b.whole(0, 5)
        )
    for _ in range(b.whole(0, 3)):  # traffic
        found = b.model(b.pick((("car",), ("car",), ("bike",))))
        if found is not None:
            extent = found[0].bounds[1] - found[0].bounds[0]
            side = b.pick((-1, 1))
            yaw = (0.0 if extent[2] > extent[0] else math.pi / 2) + (0 if side > 0 else math.pi)
            b.movers.append(_driving(found[0], side * lane * 0.18, b.uniform(5, 50), yaw, side * b.uniform(-0.6, 0.1)))
    if b.chance(0.35):
        for z in np.arange(3, 50, 12):
            b.lamps.append(Lamp((lane / 2 * b.pick((-1, 1)), -5.0, float(z)), (14.0, 11.0, 7.0)))
    far_background(b)
    light = b.daylight()
    if max(light.sun) > 0.1:
        b.lamps.clear()
    drive = Stand(
        (-lane * 0.3, lane * 0.3),
        (-15, 10),
        (1.1, 2.2),
        (-0.04, 0.06),
        yaw=(0, 0.12),
        motions=("drive", "drive", "hand", "walk"),
    )
    stroll = Stand(
        (-lane / 2 - walk, lane / 2 + walk),
        (-10, 20),
        (1.2, 2.0),
        (-0.05, 0.12),
        motions=("walk", "hand", "pan", "still"),
    )
    across = Stand(
        (-lane / 2 - walk * 0.8, -lane / 2),
        (0, 20),
        (1.2, 2.2),
        (-0.03, 0.1),
        yaw=(math.pi / 2, 0.5),
        motions=("drive", "hand", "pan"),
    )
    above = Stand((-lane, lane), (-15, 5), (3, 20), (-0.35, 0.2), yaw=(0, 0.8), motions=("crane", "pan", "drone"))
    return Place(b.still, b.movers, light, [drive, drive, stroll, across, above])


def _driving(mesh, x: float, z: float, yaw: float, speed: float) -> Mover:
    """A mover that goes along z whatever its own front is."""
    turned = mesh.moved(shapes.turn_y(yaw), (0, 0, 0))
    return Mover(turned, (x, 0.0, z), 0.0, speed, 0.0, 0.1)


def _land(b: Builder, size: float, rough: float) -> np.ndarray:
    """Heights `[n, n]` of gentle land that is level near the middle."""
    count = 41
    coarse = b.rng.normal(0, rough, (9, 9)).astype(np.float32)
    heights = cv2.resize(coarse, (count, count), interpolation=cv2.INTER_CUBIC)
    axis = np.linspace(-1, 1, count)
    away = np.clip(np.hypot(*np.meshgrid(axis, axis)) * 3 - 0.3, 0, 1)
    return (heights - heights[count // 2, count // 2]) * away


def park(b: Builder) -> Place:
    """Grass, paths, trees, bushes, benches, animals; a wood where trees are many; snow or sand now and then."""
    rough = b.pick((0.0, 0.4, 1.5, 4.0))
    cover = b.painted(textures.grass, b.uniform(0.8, 3)) if b.chance(0.5) else b.surface("ground", 0.15)
    b.still.append(
        shapes.ground(240.0, _land(b, 240.0, rough), Surface(cover.color, cover.texture, tile_m=cover.tile_m))
    )
    if b.chance(0.5):
        wide, yaw = b.uniform(1, 4), b.uniform(-0.5, 0.5)
        path = shapes.quad((-wide / 2, -0.02, -10), (wide, 0, 0), (0, 0, 60), b.surface("ground", 0.3))
        b.still.append(path.moved(shapes.turn_y(yaw), (0, 0, 0)))
    if b.chance(0.2):  # water
        b.still.append(
            shapes.quad((-30, -0.03, b.uniform(8, 20)), (60, 0, 0), (0, 0, 25), Surface((0.04, 0.07, 0.08), gloss=1.0))
        )
    for _ in range(b.pick((3, 10, 25, 60))):
        x, z = b.uniform(-28, 28), b.uniform(-12, 50)
        if math.hypot(x, z) > 2:
            tree(b, x, z)
    for _ in range(b.whole(0, 14)):
        b.put_free(("bush", "street", "animal", "fence", "street"), (-10, 10), (-4, 18))
    if b.chance(0.5):
        people(b, (-8, 8), (-2, 18), b.whole(1, 6), ("person", "person", "animal", "bike"))
    if b.chance(0.25):
        goal = b.surface("wall", 0.4)
        b.still.append(
            shapes.box(
                (b.uniform(-15, 15), -2.2, b.uniform(18, 40)),
                (b.uniform(5, 12), 4.4, b.uniform(5, 12)),
                goal,
                b.uniform(0, 3),
            )
        )
    _fence(b)
    far_background(b)
    eye = Stand((-9, 9), (-8, 8), (0.4, 2.2), (-0.08, 0.15), motions=("walk", "hand", "pan", "orbit", "still"))
    drone = Stand((-15, 15), (-15, 5), (4, 40), (-0.5, 0.25), motions=("drone", "crane"))
    return Place(b.still, b.movers, b.daylight(), [eye, eye, eye, drone])


def _fence(b: Builder) -> None:
    """Pales, boards or rails across the view."""
    if not b.chance(0.35):
        return
    z, tall, yaw = b.uniform(2, 14), b.uniform(0.7, 1.9), b.uniform(-0.4, 0.4)
    gap, wide = b.uniform(0.1, 0.3), b.uniform(0.02, 0.12)
    cover = b.painted(textures.wood, 1.0) if b.chance(0.5) else b.plain(0.05, 0.95, 0.4)
    turn = shapes.turn_y(yaw)
    for x in np.arange(-12, 12, gap):
        b.still.append(shapes.box(turn @ np.array([x, -tall / 2, z]), (wide, tall, 0.03), cover, yaw))
    for up in (0.25, 0.85):
        b.still.append(shapes.box(turn @ np.array([0, -tall * up, z + 0.03]), (24, 0.07, 0.03), cover, yaw))


def yard(b: Builder) -> Place:
    """Behind a house: a wall or two, a terrace, garden furniture, toys, a car, trees beyond."""
    b.still.append(shapes.quad((-80, 0, -80), (160, 0, 0), (0, 0, 160), b.surface("ground", 0.2)))
    b.still.append(shapes.quad((-6, -0.015, -5), (12, 0, 0), (0, 0, b.uniform(6, 12)), b.surface("floor", 0.2)))
    far = b.uniform(6, 14)
    house_front(b, far, -10, b.uniform(12, 25), b.uniform(3, 8), -1)
    if b.chance(0.7):
        house_front(b, -b.uniform(5, 12), -10, b.uniform(12, 25), b.uniform(2, 7), 1)
    if b.chance(0.6):
        b.still.append(
            shapes.box(
                (0, -b.uniform(0.7, 1.2), b.uniform(9, 18)), (30, b.uniform(1.2, 2.4), 0.3), b.surface("wall", 0.3)
            )
        )
    for _ in range(b.whole(5, 18)):
        b.put_free(
            ("street", "bush", "bike", "furniture", "animal", "fence"),
            (-6, 6),
            (-2, 10),
            lambda m: m.size_m is not None and max(m.size_m) < 3.5,
        )
    if b.chance(0.5):
        b.put_free(("car",), (-5, 5), (3, 12))
    for _ in range(b.whole(0, 6)):
        tree(b, b.uniform(-14, 14), b.uniform(8, 26))
    crates(b, (-5, 5), (0, 9), b.whole(0, 6))
    people(b, (-5, 5), (0, 9), b.whole(0, 4), b.pick((("person",), ("person", "animal"))))
    _fence(b)
    far_background(b, 60)
    eye = Stand((-4, 4), (-4, 5), (0.4, 2.0), (-0.1, 0.18))
    return Place(b.still, b.movers, b.daylight(), [eye])
