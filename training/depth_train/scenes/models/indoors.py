"""Rooms, desks, shops, halls: what a place within walls is made of."""

from __future__ import annotations

import math

import numpy as np

from depth_train.scenes.models import shapes, textures
from depth_train.scenes.models.builder import Builder, Mover, Place, Stand
from depth_train.scenes.models.lighting import Lamp
from depth_train.scenes.models.meshes import Surface


def shell(
    b: Builder, width: float, depth: float, height: float, windows: int, doors: int = 1, ceiling: bool = True
) -> bool:
    """Floor, ceiling and four walls around the origin, with windows and doors; True if there is a window."""
    floor = b.surface("floor", 0.25)
    b.still.append(shapes.quad((-width / 2, 0, -depth / 2), (width, 0, 0), (0, 0, depth), floor))
    if ceiling:
        top = b.plain(0.6, 0.98, 0.1) if b.chance(0.8) else b.surface("wall")
        b.still.append(shapes.quad((-width / 2, -height, -depth / 2), (width, 0, 0), (0, 0, depth), top))
    paint = b.surface("wall", 0.5)
    frame = b.plain(0.4, 0.95, 0.3)
    corners = [(-width / 2, -depth / 2), (-width / 2, depth / 2), (width / 2, depth / 2), (width / 2, -depth / 2)]
    open_ = [int(v) for v in b.rng.choice(4, size=min(windows, 4), replace=False)]
    for i in range(4):
        start, end = corners[i], corners[(i + 1) % 4]
        length = math.hypot(end[0] - start[0], end[1] - start[1])
        cover = paint if b.chance(0.8) else b.surface("wall", 0.4)
        holes = []
        if i in open_:
            at = b.uniform(0.2, 0.6)
            while at < length - 0.9:
                wide = min(b.uniform(0.6, 2.2), length - at - 0.2)
                sill = b.pick((0.05, b.uniform(0.6, 1.1)))
                holes.append((at, sill, wide, min(b.uniform(0.9, 1.9), height - sill - 0.15)))
                at += wide + b.uniform(0.3, 2.5)
        elif doors > 0 and length > 1.6:
            doors -= 1
            holes.append((b.uniform(0.2, length - 1.1), 0.0, 0.9, min(2.05, height - 0.1)))
        b.still += shapes.wall(start, end, height, cover, holes, 0.2, frame)
        along = np.array([end[0] - start[0], 0, end[1] - start[1]]) / length
        inward = np.cross(along, [0, -1.0, 0])
        inward *= np.sign(-(inward @ np.array([start[0], 0, start[1]])) or 1)
        origin = np.array([start[0], 0, start[1]])
        for left, bottom, wide, high in holes:
            if bottom > 0.01 or i in open_:  # bars across the window
                for share in np.linspace(0, 1, b.whole(2, 4)):
                    foot = origin + along * (left + share * wide) + [0, -bottom, 0]
                    b.still.append(shapes.quad(foot - along * 0.03, along * 0.06, (0, -high, 0), frame))
                if b.chance(0.4):  # curtains
                    cloth = b.painted(textures.stripes) if b.chance(0.4) else b.plain(0.3, 0.95, 0.6)
                    for side in (left - 0.25, left + wide - 0.15):
                        folds = np.linspace(0, 0.4, 9)
                        for k in range(8):
                            p = origin + along * (side + folds[k]) + inward * (0.06 + 0.04 * (k % 2))
                            q = origin + along * (side + folds[k + 1]) + inward * (0.06 + 0.04 * ((k + 1) % 2))
                            b.still.append(shapes.quad(p, q - p, (0, -(bottom + high + 0.1), 0), cloth))
            elif b.chance(0.6):  # a closed door
                b.still.append(
                    shapes.quad(
                        origin + along * left + inward * -0.05,
                        along * wide,
                        (0, -high, 0),
                        b.painted(textures.wood, 0.8) if b.chance(0.5) else b.plain(0.3, 0.95, 0.4, 0.1),
                    )
                )
            else:  # the next room
                back = b.surface("wall", 0.5)
                b.still.append(
                    shapes.quad(
                        origin + along * (left - 2) - inward * b.uniform(1.2, 4),
                        along * (wide + 4),
                        (0, -height, 0),
                        back,
                    )
                )
                b.still.append(shapes.quad(origin + along * (left - 2), along * (wide + 4), -inward * 4, floor))
        # Skirting, pictures, shelves on the wall.
        if b.chance(0.6):
            b.still.append(shapes.quad(origin + inward * 0.015, along * length, (0, -0.09, 0), frame))
        for _ in range(b.whole(0, 3)):
            wide, high = b.uniform(0.2, 1.4), b.uniform(0.2, 1.0)
            left, bottom = b.uniform(0.1, max(0.11, length - wide - 0.1)), b.uniform(1.1, max(1.2, height - high - 0.2))
            if all(
                left > l_ + w_ or left + wide < l_ or bottom > b_ + h_ or bottom + high < b_ for l_, b_, w_, h_ in holes
            ):
                centre = origin + along * (left + wide / 2) + inward * 0.02 + [0, -bottom - high / 2, 0]
                b.still.append(
                    shapes.box(centre, (wide, high, 0.03), b.photo(), math.atan2(inward[0], inward[2]), True)
                )
    return bool(open_)


def lamps_of(b: Builder, width: float, depth: float, height: float) -> None:
    """Lamps at the ceiling or on stands, some of them on."""
    for _ in range(b.whole(0, 3) if width * depth < 60 else b.whole(2, 6)):
        x, z = b.uniform(-width / 2 + 0.4, width / 2 - 0.4), b.uniform(-depth / 2 + 0.4, depth / 2 - 0.4)
        hang = b.uniform(0.05, 0.9) if b.chance(0.6) else height - b.uniform(1.2, 1.7)
        warm = np.array([1.0, b.uniform(0.7, 1.0), b.uniform(0.4, 1.0)]) * b.uniform(0.4, 3.0)
        bulb = Surface((1.0, float(warm[1] / warm[0]), float(warm[2] / warm[0])), emission=b.uniform(1, 12))
        found = b.model(("ceiling",)) if hang < 1 else None
        if found is not None:
            mesh = found[0]
            b.still.append(mesh.moved(np.eye(3), (x, -height + float(mesh.bounds[1, 1] - mesh.bounds[0, 1]), z)))
            b.still.append(shapes.ball((x, -height + 0.35, z), (0.05,) * 3, bulb))
            b.lamps.append(Lamp((x, -height + 0.5, z), (float(warm[0]), float(warm[1]), float(warm[2]))))
        else:
            b.still.append(shapes.ball((x, -height + hang, z), (b.uniform(0.05, 0.25),) * 3, bulb))
            if hang < 1:
                b.still.append(
                    shapes.tube(np.array([[x, -height, z], [x, -height + hang, z]]), 0.006, b.plain(0.05, 0.5))
                )
            b.lamps.append(Lamp((x, -height + hang + 0.15, z), (float(warm[0]), float(warm[1]), float(warm[2]))))


def along_walls(b: Builder, width: float, depth: float, count: int, roles: tuple[str, ...] = ("furniture",)) -> None:
    """Stand furniture with its back to a wall."""
    for _ in range(count):
        found = b.model(roles, lambda m: m.size_m is not None and 0.3 < max(m.size_m) < 2.8)
        if found is None:
            return
        mesh, model = found
        extent = mesh.bounds[1] - mesh.bounds[0]
        side = b.whole(0, 3)
        half = (width / 2, depth / 2)[side % 2 == 0]
        reach = ((depth if side % 2 else width) - extent[0]) / 2
        if reach <= 0:
            continue
        along, away = b.uniform(-reach, reach), half - extent[2] / 2 - b.uniform(0.02, 0.15)
        x, z, yaw = (
            (along, away, 0.0),
            (away, along, math.pi / 2),
            (along, -away, math.pi),
            (-away, along, -math.pi / 2),
        )[side]
        radius = 0.45 * float(np.hypot(extent[0], extent[2]))
        if not b.is_free(x, z, radius):
            continue
        b.taken.append((x, z, radius))
        b.put(mesh, x, z, yaw, model.elevation_m)
        if model.top_m is not None and 0.3 < model.top_m < 1.4 and model.elevation_m == 0 and b.chance(0.6):
            reach_x = extent[0 if side % 2 == 0 else 2] * 0.35
            reach_z = extent[2 if side % 2 == 0 else 0] * 0.35
            b.load_up((x - reach_x, x + reach_x), (z - reach_z, z + reach_z), model.top_m, b.whole(1, 5))


def people(
    b: Builder, x: tuple[float, float], z: tuple[float, float], count: int, roles: tuple[str, ...] = ("person",)
) -> None:
    """People or animals, some of whom walk."""
    for _ in range(count):
        found = b.model(roles)
        if found is None:
            return
        at = (b.uniform(*x), 0.0, b.uniform(*z))
        if not b.is_free(at[0], at[2], 0.4):
            continue
        b.taken.append((at[0], at[2], 0.4))
        yaw = b.uniform(0, 2 * math.pi)
        tall = float(found[0].bounds[1, 1] - found[0].bounds[0, 1])
        if b.chance(0.5) and tall > 1.2:
            b.movers.append(Mover(found[0], at, yaw, b.uniform(0.01, 0.07), b.uniform(0, 0.15), b.uniform(0.1, 0.5)))
        else:
            b.put(found[0], at[0], at[2], yaw)


def room(b: Builder) -> Place:
    """A room that is lived or worked in."""
    width, depth, height = b.uniform(2.4, 8), b.uniform(2.4, 9), b.uniform(2.2, 3.6)
    if b.chance(0.08):
        width, depth, height = width * 2, depth * 2, height * 1.7
    has_window = shell(b, width, depth, height, b.whole(0, 2), b.whole(0, 2))
    if b.chance(0.5):
        wide, long = b.uniform(0.8, width * 0.7), b.uniform(0.8, depth * 0.7)
        cover = b.painted(textures.stripes, b.uniform(0.4, 2)) if b.chance(0.6) else b.plain(0.1, 0.8, 1.0)
        b.still.append(
            shapes.box((b.uniform(-1, 1), -0.01, b.uniform(-1, 1)), (wide, 0.02, long), cover, b.uniform(-0.3, 0.3))
        )
    along_walls(b, width, depth, b.whole(3, 14))
    inner = (-width / 2 + 0.8, width / 2 - 0.8), (-depth / 2 + 0.8, depth / 2 - 0.8)
    for _ in range(b.whole(0, 6)):
        b.put_free(
            ("furniture",), *inner, lambda m: m.size_m is not None and m.elevation_m == 0 and max(m.size_m) < 2.2
        )
    if b.chance(0.5):
        table = b.uniform(0.4, 1.0), b.uniform(0.4, 0.8)
        x, z, top = b.uniform(*inner[0]), b.uniform(*inner[1]), b.uniform(0.4, 0.95)
        wood = b.painted(textures.wood, 1.0, 0.2)
        b.still.append(shapes.box((x, -top, z), (2 * table[0], 0.04, 2 * table[1]), wood))
        for sx in (-1, 1):
            for sz in (-1, 1):
                b.still.append(
                    shapes.box((x + sx * table[0] * 0.9, -top / 2, z + sz * table[1] * 0.9), (0.05, top, 0.05), wood)
                )
        b.load_up(
            (x - table[0] * 0.8, x + table[0] * 0.8),
            (z - table[1] * 0.8, z + table[1] * 0.8),
            top + 0.02,
            b.whole(2, 12),
        )
        b.taken.append((x, z, 0.8))
    b.load_up(*inner, 0.0, b.whole(0, 6))
    if b.chance(0.45):
        people(b, *inner, b.whole(1, 3), b.pick((("person",), ("person",), ("animal",))))
    lamps_of(b, width, depth, height)
    light = b.roomlight(has_window and b.chance(0.7))
    reach = (-width / 2 + 0.3, width / 2 - 0.3), (-depth / 2 + 0.3, depth / 2 - 0.3)
    stands = [Stand(*reach, (0.8, 1.9), (-0.15, 0.2)), Stand(*reach, (0.3, height - 0.3), (-0.1, 0.5))]
    corner = (-width / 2 + 0.3, -width / 2 + 1.0), (-depth / 2 + 0.3, -depth / 2 + 1.0)
    middle = np.array([[0.3, -1.0, 0.2]])
    stands.append(Stand(*corner, (1.2, 2.2), targets=middle))
    return Place(b.still, b.movers, light, stands)


def desk(b: Builder) -> Place:
    """A table from near by, and what lies on it."""
    width, depth, height = b.uniform(2.5, 6), b.uniform(2.5, 6), b.uniform(2.3, 3.2)
    has_window = shell(b, width, depth, height, b.whole(0, 1), 1)
    top = b.uniform(0.55, 0.95)
    half = b.uniform(0.4, 1.1), b.uniform(0.3, 0.6)
    z = b.pick((depth / 2 - half[1] - 0.05, b.uniform(-0.5, 0.8)))
    cover = b.surface("floor", 0.4, b.uniform(0, 0.5))
    b.still.append(shapes.box((0, -top, z), (2 * half[0], 0.04, 2 * half[1]), cover))
    for sx in (-1, 1):
        b.still.append(shapes.box((sx * half[0] * 0.92, -top / 2, z), (0.05, top, half[1]), b.plain(0.05, 0.8)))
    span = (-half[0] * 0.9, half[0] * 0.9), (z - half[1] * 0.9, z + half[1] * 0.9)
    for _ in range(b.whole(0, 3)):  # screens
        wide, x, at = b.uniform(0.3, 0.7), b.uniform(*span[0]), b.uniform(z, span[1][1])
        yaw, lift = b.uniform(-0.5, 0.5), b.uniform(0.06, 0.2)
        picture = b.photo() if b.chance(0.6) else b.plain(0.0, 0.1, 0.1, 0.5)
        if b.chance(0.6):
            picture = Surface(picture.color, picture.texture, emission=b.uniform(0.2, 1.5))
        body = b.plain(0.02, 0.8, 0.1, 0.2)
        centre = np.array([x, -top - lift - wide * 0.3, at])
        b.still.append(shapes.box(centre, (wide, wide * 0.62, 0.03), body, yaw))
        b.still.append(
            shapes.box(centre - shapes.turn_y(yaw)[:, 2] * 0.02, (wide * 0.94, wide * 0.56, 0.012), picture, yaw, True)
        )
        b.still.append(shapes.cylinder((x, -top, at), 0.04, lift, body))
        b.still.append(shapes.cylinder((x, -top, at), 0.11, 0.015, body))
        if b.chance(0.7):
            keys = b.painted(textures.cells, 0.12) if b.chance(0.7) else b.plain(0.05, 0.9)
            b.still.append(
                shapes.box((x, -top - 0.025, at - b.uniform(0.2, 0.35)), (0.42, 0.02, 0.14), keys, yaw * 0.5)
            )
    b.load_up(*span, top + 0.02, b.whole(6, 30))
    along_walls(b, width, depth, b.whole(2, 8))
    for _ in range(b.whole(0, 2)):
        b.put_free(
            ("furniture",),
            (-1.2, 1.2),
            (z - half[1] - 0.9, z - half[1] - 0.3),
            lambda m: m.size_m is not None and max(m.size_m) < 1.3,
        )
    if b.chance(0.25):
        people(b, (-1, 1), (z - 1.2, z - 0.3), 1)
    lamps_of(b, width, depth, height)
    target = np.stack([b.rng.uniform(*span[0], 6), np.full(6, -top - 0.1), b.rng.uniform(*span[1], 6)], axis=1)
    near = (-half[0] - 0.2, half[0] + 0.2), (z - half[1] - 0.9, z + half[1] * 0.3)
    motions = ("hand", "orbit", "pan", "crane")
    stands = [Stand(*near, (top + 0.15, top + 1.1), targets=target, motions=motions)]
    stands.append(Stand(*near, (top + 0.1, top + 0.6), (-0.3, 0.3), motions=motions))
    return Place(b.still, b.movers, b.roomlight(has_window and b.chance(0.6)), stands)


def hall(b: Builder) -> Place:
    """A corridor, a shop or a store: long walls, pillars, shelves in rows, stairs, crates."""
    width, depth, height = b.uniform(1.5, 14), b.uniform(8, 30), b.uniform(2.3, 6)
    has_window = shell(b, width, depth, height, b.whole(0, 2), 2)
    if width > 4 and b.chance(0.6):  # shelves with goods, in rows
        body = b.plain(0.2, 0.9, 0.2)
        goods = [
            (
                b.uniform(0.05, 0.3),
                b.uniform(0.08, 0.32),
                b.painted(textures.print_) if b.chance(0.5) else b.plain(0.05, 0.95, 1.0),
            )
            for _ in range(6)
        ]
        x = -width / 2 + 0.4
        while x < width / 2 - 0.4:
            tall, z = b.uniform(1.2, 2.2), -depth / 2 + 1.5
            end = depth / 2 - b.uniform(1.5, 4)
            for level in np.arange(0.15, tall, 0.42):
                b.still.append(shapes.box((x, -level, (z + end) / 2), (0.45, 0.03, end - z), body))
                at = z
                while at < end:
                    wide, high, cover = b.pick(goods)
                    run = b.whole(1, 5)
                    for k in range(run):
                        if b.chance(0.9) and len(b.still) < 2500:
                            b.still.append(
                                shapes.box(
                                    (x + b.uniform(-0.08, 0.08), -level - high / 2 - 0.02, at + wide * (k + 0.5)),
                                    (0.3, high, wide * 0.92),
                                    cover,
                                    0,
                                    True,
                                )
                            )
                    at += wide * run + b.uniform(0, 0.15)
            x += b.uniform(1.5, 2.6)
    if b.chance(0.5):
        for z in np.arange(-depth / 2 + 2, depth / 2, b.uniform(2.5, 6)):
            for sx in (-1, 1):
                if b.chance(0.5):
                    b.still.append(
                        shapes.box((sx * width * 0.3, -height / 2, z), (0.35, height, 0.35), b.surface("wall", 0.5))
                    )
                else:
                    b.still.append(shapes.cylinder((sx * width * 0.3, 0, z), 0.2, height, b.surface("wall", 0.5)))
    if b.chance(0.4):
        b.still += shapes.stairs(
            (b.uniform(-width / 4, width / 4), b.uniform(0, depth / 4)),
            b.uniform(-0.1, 0.1) + b.pick((0, math.pi / 2, math.pi)),
            b.uniform(0.9, 3),
            b.whole(5, 18),
            b.surface("floor", 0.5),
        )
    crates(b, (-width / 2 + 0.4, width / 2 - 0.4), (-depth / 2 + 1, depth / 2 - 1), b.whole(0, 14))
    along_walls(b, width, depth, b.whole(0, 8), ("furniture", "street"))
    people(b, (-width / 2 + 0.5, width / 2 - 0.5), (-depth / 2 + 2, depth / 2 - 1), b.whole(0, 6))
    lamps_of(b, width, depth, height)
    reach = (-width / 2 + 0.4, width / 2 - 0.4), (-depth / 2 + 0.5, depth / 2 - 0.5)
    along = Stand(
        reach[0], (-depth / 2 + 0.4, 0), (1.0, 2.0), (-0.08, 0.12), yaw=(0, 0.35), motions=("walk", "hand", "pan")
    )
    stands = [along, Stand(*reach, (0.4, min(3.5, height - 0.3)), (-0.1, 0.3))]
    return Place(b.still, b.movers, b.roomlight(has_window and b.chance(0.5)), stands)


def crates(b: Builder, x: tuple[float, float], z: tuple[float, float], count: int) -> None:
    """Boxes, barrels and balls of any size, some of them stacked."""
    for _ in range(count):
        size = np.array([b.uniform(0.15, 1.2), b.uniform(0.15, 1.2), b.uniform(0.15, 1.2)])
        at_x, at_z, yaw, up = b.uniform(*x), b.uniform(*z), b.uniform(0, math.pi), 0.0
        if not b.is_free(at_x, at_z, 0.4):
            continue
        b.taken.append((at_x, at_z, float(size.max()) * 0.6))
        for _ in range(b.whole(1, 4)):
            cover = b.painted() if b.chance(0.5) else b.plain(0.1, 0.95, 1.0)
            kind = b.rng.random()
            if kind < 0.7:
                b.still.append(shapes.box((at_x, -up - size[1] / 2, at_z), size, cover, yaw, b.chance(0.5)))
            elif kind < 0.9:
                b.still.append(
                    shapes.cylinder(
                        (at_x, -up, at_z),
                        float(size[0]) / 2,
                        float(size[1]),
                        cover,
                        float(size[0]) / 2 * b.uniform(0.3, 1.1),
                    )
                )
            else:
                b.still.append(shapes.ball((at_x, -up - size[1] / 2, at_z), size / 2, cover))
                break
            up += float(size[1])
            size = size * b.uniform(0.6, 1.0)
            yaw += b.uniform(-0.4, 0.4)


def level(b: Builder) -> Place:
    """Blocks, ramps, platforms, arches and pillars, as in a game's level; roofed or open."""
    span = b.uniform(10, 40)
    floor = b.surface("ground", 0.15)
    b.still.append(shapes.quad((-span, 0, -span), (2 * span, 0, 0), (0, 0, 2 * span), floor))
    covers = [b.surface(b.pick(("wall", "ground", "roof")), 0.15) for _ in range(5)]
    height = b.uniform(3, 14)
    roofed = b.chance(0.35)
    for sx, sz in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        if roofed or b.chance(0.7):
            size = (0.5, height, 2 * span) if sx else (2 * span, height, 0.5)
            b.still.append(shapes.box((sx * span, -height / 2, sz * span), size, b.pick(covers)))
    if roofed:
        b.still.append(shapes.quad((-span, -height, -span), (2 * span, 0, 0), (0, 0, 2 * span), b.pick(covers)))
    for _ in range(b.whole(8, 40)):
        x, z, yaw = (
            b.uniform(-span, span),
            b.uniform(-span, span),
            b.pick((0.0, 0.0, math.pi / 2, math.pi / 4, b.uniform(0, 3))),
        )
        if math.hypot(x, z) < 2.5:
            continue
        kind, cover = b.whole(0, 5), b.pick(covers)
        if kind <= 1:
            size = (b.uniform(0.5, 8), b.uniform(0.4, height), b.uniform(0.5, 8))
            up = b.pick((0, 0, b.uniform(0, max(0.1, height - size[1]))))
            b.still.append(shapes.box((x, -up - size[1] / 2, z), size, cover, yaw))
        elif kind == 2:  # an arch
            wide, tall = b.uniform(1.5, 5), b.uniform(2.2, max(2.4, height))
            for side in (-1, 1):
                foot = shapes.turn_y(yaw) @ np.array([side * wide / 2, -tall / 2, 0]) + [x, 0, z]
                b.still.append(shapes.box(foot, (0.6, tall, 0.6), cover, yaw))
            b.still.append(shapes.box((x, -tall - 0.3, z), (wide + 1.0, 0.6, 0.8), cover, yaw))
        elif kind == 3:
            b.still += shapes.stairs((x, z), yaw, b.uniform(1, 4), b.whole(4, 16), cover, b.uniform(0.15, 0.35))
        elif kind == 4:
            b.still.append(shapes.cylinder((x, 0, z), b.uniform(0.15, 0.9), b.uniform(1, height), cover))
        else:  # a platform on legs
            wide, tall = b.uniform(2, 7), b.uniform(1.5, max(1.6, height * 0.7))
            b.still.append(shapes.box((x, -tall, z), (wide, 0.3, wide), cover, yaw))
            for sx in (-1, 1):
                for sz in (-1, 1):
                    foot = shapes.turn_y(yaw) @ np.array([sx * wide * 0.45, -tall / 2, sz * wide * 0.45]) + [x, 0, z]
                    b.still.append(shapes.box(foot, (0.3, tall, 0.3), cover, yaw))
    crates(b, (-span / 2, span / 2), (-span / 2, span / 2), b.whole(0, 12))
    people(b, (-8, 8), (-8, 8), b.whole(0, 4), ("person", "animal"))
    for _ in range(b.whole(0, 5)):
        power = tuple(float(v) for v in b.rng.uniform(1, 12, 3))
        b.lamps.append(Lamp((b.uniform(-span, span), -b.uniform(1.5, height), b.uniform(-span, span)), power))  # type: ignore[arg-type]
    light = b.roomlight(False) if roofed else b.daylight()
    reach = (-span * 0.8, span * 0.8), (-span * 0.8, span * 0.8)
    return Place(
        b.still, b.movers, light, [Stand(*reach, (1.2, 2.0), (-0.05, 0.2)), Stand(*reach, (1.0, height), (-0.2, 0.3))]
    )
