"""Things that stand in procedural scenes: trees, animals, furniture, each a few primitives."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np

from depth_train.scenes.procedural.description import (
    BOX,
    CYLINDER,
    ELLIPSOID,
    PLANE,
    Material,
    Motion,
    Primitive,
    rotation_from_angles,
)
from depth_train.scenes.procedural.materials import draw_material, hsv


class Builder:
    """Collects primitives; a thing is a group of them that stands on the ground at one place."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.primitives: list[Primitive] = []
        self.materials: list[Material] = []
        self.motions: dict[int, Motion] = {}
        self.slope = (0.0, 0.0)
        self.path: tuple[float, float, float, float, int] | None = None
        self.taken: list[tuple[float, float, float]] = []  # x, z, radius of what stands already
        self.thing = 0
        self.at(0.0, 0.0)

    def mat(self, kind: str, **changes: object) -> int:
        """Draw a material of a kind, with fields replaced; its number."""
        material = draw_material(self.rng, kind)
        for name, value in changes.items():
            setattr(material, name, value)
        self.materials.append(material)
        return len(self.materials) - 1

    def ground_y(self, x: float, z: float) -> float:
        """Height of the ground as y, which points down."""
        return self.slope[0] * x + self.slope[1] * z

    def at(self, x: float, z: float, yaw: float = 0.0, base_up: float = 0.0) -> None:
        """Begin a thing whose own origin is on the ground at (x, z), lifted by base_up."""
        self.thing += 1
        self.origin = np.array([x, self.ground_y(x, z) - base_up, z])
        self.yaw = yaw

    def add(
        self,
        shape: int,
        place: tuple[float, float, float],
        size: tuple[float, float, float],
        material: int,
        turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
        leaf_m: float = 0.0,
    ) -> None:
        """Add a part: `place` is (right, up, forward) of its centre in the thing's frame, `size` its full extents."""
        offset = rotation_from_angles(self.yaw) @ np.array([place[0], -place[1], place[2]])
        rotation = rotation_from_angles(self.yaw) @ rotation_from_angles(*turn)
        half = np.maximum(np.array(size) / 2, 0.004)
        emits = self.materials[material].emission > 0
        self.primitives.append(
            Primitive(shape, self.origin + offset, half, rotation, material, self.thing, leaf_m, emits)
        )

    def plane(self, center: np.ndarray, rotation: np.ndarray, material: int) -> None:
        """Add an infinite plane; its normal is its own y axis."""
        self.thing += 1
        self.primitives.append(Primitive(PLANE, center, np.ones(3), rotation, material, self.thing))

    def claim(self, x: float, z: float, radius: float) -> bool:
        """Take a disc of ground unless something stands there."""
        if any(math.hypot(x - tx, z - tz) < 0.8 * (radius + tr) for tx, tz, tr in self.taken):
            return False
        self.taken.append((x, z, radius))
        return True

    def move(self, speed_m: float, sway_rad: float) -> None:
        """Let the current thing go to and fro along its forward axis."""
        rng = self.rng
        forward = rotation_from_angles(self.yaw) @ np.array([0.0, 0.0, 1.0])
        forward[1] = self.slope[0] * forward[0] + self.slope[1] * forward[2]
        self.motions[self.thing] = Motion(
            self.origin.copy(),
            forward,
            rng.uniform(0.5, 3.0),
            speed_m * rng.choice((-1, 1)),
            rng.uniform(-0.8, 0.8),
            sway_rad,
            rng.uniform(0.1, 0.5),
        )


def add_tree(b: Builder, x: float, z: float, size: float) -> None:
    """Put a tree of about this size on the ground at (x, z)."""
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28))
    height, width = size * rng.uniform(2.5, 7.0), size * rng.uniform(0.12, 0.5)
    lean = (0.0, rng.gauss(0, 0.06), rng.gauss(0, 0.06))
    b.add(CYLINDER, (0, height / 2 - 0.2, 0), (width, height, width), b.mat("bark"), lean)
    leaves = b.mat("leaves")
    conifer = rng.random() < 0.25
    for i in range(rng.randint(1, 3)):
        spread = size * rng.uniform(1.5, 3.5)
        place = (0.0, height * (0.6 + 0.3 * i), 0.0)
        if not conifer:
            place = (rng.gauss(0, 0.25) * spread, height * rng.uniform(0.75, 1.15), rng.gauss(0, 0.25) * spread)
        extent = (spread * (1 - 0.25 * i * conifer), spread * rng.uniform(0.6, 1.2) * (1.5 if conifer else 1), spread)
        b.add(ELLIPSOID, place, extent, leaves, leaf_m=rng.uniform(0.08, 0.2) * spread)


def add_trunk(b: Builder, x: float, z: float, size: float) -> None:
    """A tree whose crown is above the picture, with a root swelling."""
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28))
    width, bark = size * rng.uniform(0.12, 0.5), b.mat("bark")
    lean = (0.0, rng.gauss(0, 0.07), rng.gauss(0, 0.07))
    b.add(CYLINDER, (0, 5.8, 0), (width, 12.0, width), bark, lean)
    b.add(ELLIPSOID, (0, 0, 0), (width * 1.7, width * 1.5, width * 1.7), bark)
    if rng.random() < 0.4:
        spread = rng.uniform(1.5, 4.0)
        b.add(ELLIPSOID, (0, rng.uniform(3, 5), 0), (spread, spread, spread), b.mat("leaves"), leaf_m=0.1 * spread)


def add_bush(b: Builder, x: float, z: float, size: float) -> None:
    """Put a bush of about this size on the ground at (x, z)."""
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28))
    leaves = b.mat("leaves")
    for _ in range(rng.randint(1, 3)):
        w, h = size * rng.uniform(0.6, 1.6), size * rng.uniform(0.5, 1.3)
        place = (rng.gauss(0, 0.3) * size, 0.3 * h, rng.gauss(0, 0.3) * size)
        b.add(ELLIPSOID, place, (w, h, w), leaves, leaf_m=rng.uniform(0.08, 0.2) * size)


def add_rock(b: Builder, x: float, z: float, size: float) -> None:
    """Put a rock of about this size on the ground at (x, z)."""
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28))
    w, h = size * rng.uniform(0.5, 1.5), size * rng.uniform(0.3, 0.9)
    turn = (0.0, rng.gauss(0, 0.15), rng.gauss(0, 0.15))
    b.add(
        rng.choice((ELLIPSOID, ELLIPSOID, BOX)), (0, 0.3 * h, 0), (w, h, w * rng.uniform(0.6, 1.2)), b.mat("rock"), turn
    )


def add_log(b: Builder, x: float, z: float, size: float) -> None:
    """Put a log of about this size on the ground at (x, z)."""
    rng, width = b.rng, b.rng.uniform(0.15, 0.5) * size
    b.at(x, z, rng.uniform(0, 6.28))
    b.add(CYLINDER, (0, 0.4 * width, 0), (width, rng.uniform(1, 4), width), b.mat("bark"), (0, 0, math.pi / 2))


def add_person(b: Builder, x: float, z: float, size: float) -> None:
    """Put a person of about this size on the ground at (x, z)."""
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28))
    h = rng.uniform(1.45, 1.95)
    top, legs, skin = b.mat(rng.choice(("plain", "plain", "stripes"))), b.mat("plain"), b.mat("skin")
    stride = rng.uniform(0.0, 0.35)
    for side in (-1, 1):
        b.add(
            CYLINDER, (0.09 * side, 0.25 * h, 0.12 * side * stride), (0.15, 0.5 * h, 0.16), legs, (0, side * stride, 0)
        )
        b.add(ELLIPSOID, (0.24 * side, 0.62 * h, 0), (0.11, 0.4 * h, 0.12), top, (0, -side * stride, 0.15 * side))
    b.add(ELLIPSOID, (0, 0.66 * h, 0), (0.42, 0.42 * h, 0.27), top)
    b.add(ELLIPSOID, (0, 0.92 * h, 0), (0.17, 0.15 * h, 0.2), skin)
    b.add(ELLIPSOID, (0, 0.95 * h, -0.02), (0.19, 0.12 * h, 0.2), b.mat("fur"))


def add_animal(b: Builder, x: float, z: float, size: float) -> None:
    """Four legs, a body, a neck, a head: from cat to elephant by its proportions."""
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28))
    s = size * rng.uniform(0.5, 1.6)
    fur = b.mat("fur")
    length, girth, leg = s * rng.uniform(0.9, 1.3), s * rng.uniform(0.4, 0.7), s * rng.uniform(0.3, 0.7)
    up = leg + 0.35 * girth
    b.add(ELLIPSOID, (0, up, 0), (girth * 0.9, girth, length), fur, (0, rng.gauss(0, 0.05), 0))
    thick = girth * rng.uniform(0.15, 0.36)
    for side in (-1, 1):
        for end in (-1, 1):
            place = (side * girth * 0.28, up / 2, end * length * 0.32)
            b.add(CYLINDER, place, (thick, up, thick), fur, (0, rng.gauss(0, 0.15), 0))
    head, rise, reach = girth * rng.uniform(0.45, 0.75), rng.uniform(-0.1, 0.6) * girth, length * rng.uniform(0.5, 0.7)
    b.add(ELLIPSOID, (0, up + 0.6 * rise, 0.42 * length), (head * 0.7, head * 0.8, 0.45 * length), fur, (0, rise, 0))
    b.add(ELLIPSOID, (0, up + rise + 0.1 * s, reach), (head * 0.8, head, head * 1.2), fur)
    if rng.random() < 0.5:  # trunk or muzzle, ears
        nose, angle = head * rng.uniform(0.25, 0.45), rng.uniform(-1.6, 0.2)
        curl, links = rng.uniform(-0.2, 0.5), rng.randint(2, 6)
        link = rng.uniform(0.25, 0.9) * up / links
        tip_up, tip_forward = up + rise - 0.1 * head, reach + 0.45 * head
        for taper in range(links):  # a chain that bends on
            rise_of, run_of = link * math.sin(angle), link * math.cos(angle)
            width = nose * (1 - 0.5 * taper / links)
            middle = (0, tip_up + rise_of / 2, tip_forward + run_of / 2)
            b.add(ELLIPSOID, middle, (width, width, 1.7 * link + 0.3 * width), fur, (0, angle, 0))
            tip_up, tip_forward, angle = tip_up + rise_of, tip_forward + run_of, angle + curl
        for side in (-1, 1):
            place = (side * head * 0.5, up + rise + 0.2 * s, reach - 0.2 * head)
            b.add(ELLIPSOID, place, (0.15 * head, head, head * rng.uniform(0.4, 0.9)), fur, (0.5 * side, 0, 0))
    b.add(CYLINDER, (0, up, -0.52 * length), (0.08 * girth, leg, 0.08 * girth), fur, (0, rng.uniform(-0.6, 0.2), 0))


def add_car(b: Builder, x: float, z: float, size: float) -> None:
    """Put a car of about this size on the ground at (x, z)."""
    rng = b.rng
    b.at(x, z, rng.choice((0.0, math.pi)) + rng.gauss(0, 0.1))
    paint, glass = (
        b.mat("plain", gloss=0.4, contrast=0.02),
        b.mat("plain", color_a=(0.02,) * 3, color_b=(0.06,) * 3, gloss=0.5),
    )
    rubber = b.mat("plain", color_a=(0.02,) * 3, color_b=(0.04,) * 3)
    length, roof = rng.uniform(3.6, 5.0), rng.uniform(0.45, 0.9)
    b.add(BOX, (0, 0.62, 0), (1.75, 0.65, length), paint)
    b.add(BOX, (0, 0.95 + roof / 2, -0.1 * length), (1.5, roof, length * rng.uniform(0.45, 0.7)), glass)
    b.add(BOX, (0, 0.95 + roof, -0.1 * length), (1.45, 0.06, length * 0.45), paint)
    for side in (-1, 1):
        for end in (-1, 1):
            b.add(CYLINDER, (0.8 * side, 0.32, 0.31 * end * length), (0.64, 0.22, 0.64), rubber, (0, 0, math.pi / 2))


def add_house(b: Builder, x: float, z: float, size: float) -> None:
    """Put a house of about this size on the ground at (x, z)."""
    rng = b.rng
    b.at(x, z, rng.uniform(-0.6, 0.6))
    w, h, d = rng.uniform(4, 12), rng.uniform(2.5, 8), rng.uniform(4, 10)
    b.add(BOX, (0, h / 2 - 0.5, 0), (w, h + 1, d), b.mat(rng.choice(("facade", "masonry", "plain", "facade"))))
    if rng.random() < 0.6:  # a gable: a cube on its edge, sunk into the walls
        roof = b.mat("tiles", color_a=hsv(rng, (0.0, 0.1), (0.1, 0.6), (0.2, 0.6)))
        side = w / math.sqrt(2) * 1.04
        b.add(BOX, (0, h, 0), (side, side, d * 1.05), roof, (0, 0, math.pi / 4))


def add_fence(b: Builder, x: float, z: float, size: float) -> None:
    """Put a fence of about this size on the ground at (x, z): closed, or of pales that show what is behind."""
    rng = b.rng
    yaw, h, length = rng.gauss(0, 0.5), rng.uniform(0.6, 2.4), rng.uniform(3, 20)
    if rng.random() < 0.4:
        add_pales(b, x, z, yaw, 0.6 * h, min(length, 8.0))
        return
    b.at(x, z, yaw)
    b.add(
        BOX,
        (0, h / 2, 0),
        (length, h, rng.uniform(0.05, 0.4)),
        b.mat(rng.choice(("stripes", "masonry", "wood", "plain"))),
    )


def add_pales(b: Builder, x: float, z: float, yaw: float, height_m: float, length_m: float) -> None:
    """Put a fence of pales on two rails, centred at (x, z)."""
    rng = b.rng
    b.at(x, z, yaw)
    wood = (
        b.mat("plain", color_a=hsv(rng, (0.05, 0.15), (0.0, 0.1), (0.7, 1.0))) if rng.random() < 0.5 else b.mat("wood")
    )
    count = rng.randint(8, 20)
    pitch = length_m / count
    width = pitch * rng.uniform(0.15, 0.65)
    for pale in range(count):
        b.add(BOX, ((pale - (count - 1) / 2) * pitch, height_m / 2, 0), (width, height_m, 0.03), wood)
    for up in (0.25, 0.75):
        b.add(BOX, (0, up * height_m, 0.03), (length_m, 0.08, 0.03), wood)


def add_pole(b: Builder, x: float, z: float, size: float) -> None:
    """Put a pole of about this size on the ground at (x, z)."""
    rng, width = b.rng, b.rng.uniform(0.06, 0.25)
    b.at(x, z)
    h = rng.uniform(2, 8)
    b.add(CYLINDER, (0, h / 2, 0), (width, h, width), b.mat("plain"))
    if rng.random() < 0.6:
        b.add(
            rng.choice((BOX, ELLIPSOID)), (0, h, 0), (rng.uniform(0.3, 0.9), rng.uniform(0.2, 0.7), 0.1), b.mat("any")
        )


def build_table(b: Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    """Put a table of about this size on the ground at (x, z)."""
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28) if yaw is None else yaw)
    wood, h = b.mat(rng.choice(("wood", "plain"))), rng.uniform(0.4, 0.85)
    w, d = rng.uniform(0.6, 1.8), rng.uniform(0.5, 1.0)
    if rng.random() < 0.25:
        b.add(CYLINDER, (0, h, 0), (w, 0.04, w), wood)
        b.add(CYLINDER, (0, h / 2, 0), (0.1, h, 0.1), wood)
        d = w
    else:
        b.add(BOX, (0, h, 0), (w, rng.uniform(0.03, 0.08), d), wood)
        for side in (-1, 1):
            for end in (-1, 1):
                b.add(BOX, (side * (w / 2 - 0.06), h / 2, end * (d / 2 - 0.06)), (0.06, h, 0.06), wood)
    add_clutter(b, w, d, h + 0.03, rng.randint(1, 4))


def add_clutter(b: Builder, w: float, d: float, up: float, count: int) -> None:
    """Small things standing on a w x d surface of the current thing."""
    rng = b.rng
    for i in range(count):
        px, pz = ((i + rng.uniform(0.2, 0.8)) / count - 0.5) * w * 0.8, rng.uniform(-0.35, 0.35) * d
        h, s = rng.uniform(0.05, 0.35), rng.uniform(0.06, 0.22)
        shape = rng.choice((BOX, CYLINDER, ELLIPSOID))
        extent = (s, s if shape == ELLIPSOID else h, s if shape != BOX else rng.uniform(0.06, 0.3))
        b.add(shape, (px, up + extent[1] / 2, pz), extent, b.mat("any"), (rng.uniform(0, 3), 0, 0))


def add_chair(b: Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    """Put a chair of about this size on the ground at (x, z)."""
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28) if yaw is None else yaw)
    seat, frame, h, w = (
        b.mat("any"),
        b.mat(rng.choice(("wood", "plain"))),
        rng.uniform(0.4, 0.5),
        rng.uniform(0.38, 0.5),
    )
    b.add(BOX, (0, h, 0), (w, 0.06, w), seat)
    b.add(BOX, (0, h + 0.28, -w / 2), (w, rng.uniform(0.3, 0.55), 0.05), seat, (0, rng.uniform(0, 0.15), 0))
    for side in (-1, 1):
        for end in (-1, 1):
            b.add(BOX, (side * 0.43 * w, h / 2, end * 0.43 * w), (0.04, h, 0.04), frame)


def add_sofa(b: Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    """Put a sofa of about this size on the ground at (x, z)."""
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28) if yaw is None else yaw)
    cloth, w, d = b.mat(rng.choice(("plain", "any"))), rng.uniform(0.8, 2.2), rng.uniform(0.75, 0.95)
    b.add(BOX, (0, 0.22, 0), (w, 0.44, d), cloth)
    b.add(BOX, (0, 0.45, -d / 2 + 0.1), (w, rng.uniform(0.7, 0.95), 0.2), cloth, (0, 0.06, 0))
    for side in (-1, 1):
        b.add(BOX, (side * (w / 2 - 0.08), 0.3, 0), (0.16, 0.62, d), cloth)
    b.add(ELLIPSOID, (rng.uniform(-0.3, 0.3) * w, 0.55, -0.1), (0.45, 0.4, 0.2), b.mat("any"), (0, 0.3, 0))


def add_cabinet(b: Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    """Put a cabinet of about this size on the ground at (x, z)."""
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28) if yaw is None else yaw)
    w, h, d = rng.uniform(0.4, 1.8), rng.uniform(0.4, 2.1), rng.uniform(0.25, 0.6)
    if rng.random() < 0.35:  # a shelf of books: narrow cells of different tone
        body = b.mat("stripes", pattern=1, period_m=(0.05, 0.32), gap=(0.1, 0.15), tone=0.9)
    else:
        body = b.mat(rng.choice(("wood", "plain", "tiles")))
    b.add(BOX, (0, h / 2, 0), (w, h, d), body)
    if h < 1.3:
        add_clutter(b, w, d, h, rng.randint(0, 3))


def add_bed(b: Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    """Put a bed of about this size on the ground at (x, z)."""
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28) if yaw is None else yaw)
    w = rng.uniform(0.9, 1.8)
    b.add(BOX, (0, 0.25, 0), (w, 0.5, 2.0), b.mat("any"))
    b.add(BOX, (0, 0.5, -0.98), (w + 0.1, 1.0, 0.06), b.mat("wood"))
    b.add(ELLIPSOID, (0, 0.55, -0.7), (w * 0.7, 0.2, 0.4), b.mat("plain"))


def add_lamp(b: Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    """Put a lamp of about this size on the ground at (x, z)."""
    rng = b.rng
    b.at(x, z)
    h = rng.uniform(1.2, 1.8)
    b.add(CYLINDER, (0, h / 2, 0), (0.03, h, 0.03), b.mat("plain"))
    b.add(CYLINDER, (0, 0.02, 0), (0.3, 0.04, 0.3), b.mat("plain"))
    b.add(CYLINDER, (0, h, 0), (0.4, 0.3, 0.4), b.mat("plain", emission=rng.choice((0.0, 0.6, 1.2))))


def add_hanging_lamp(b: Builder, x: float, z: float, ceiling_m: float) -> None:
    """Hang a lamp or a chandelier from the ceiling over (x, z)."""
    rng = b.rng
    b.at(x, z)
    drop, w = rng.uniform(0.15, 0.4) * ceiling_m, rng.uniform(0.2, 0.6)
    glow = b.mat("plain", emission=rng.choice((0.0, 0.8, 1.6)))
    b.add(CYLINDER, (0, ceiling_m - drop / 2, 0), (0.02, drop, 0.02), b.mat("plain"))
    for ring in range(rng.randint(1, 3)):  # each lower and narrower than the one above
        extent = w * (1 - 0.3 * ring)
        b.add(ELLIPSOID, (0, ceiling_m - drop - 0.4 * w * ring, 0), (extent, 0.6 * w, extent), glow)


def add_plant(b: Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    """Put a plant of about this size on the ground at (x, z)."""
    rng = b.rng
    b.at(x, z)
    w, h = rng.uniform(0.2, 0.45), rng.uniform(0.2, 0.45)
    b.add(CYLINDER, (0, h / 2, 0), (w, h, w), b.mat("plain"))
    s, leaves = rng.uniform(0.4, 1.0), b.mat("leaves", feature_m=0.1)
    b.add(ELLIPSOID, (0, h + 0.45 * s, 0), (s, 1.1 * s, s), leaves, leaf_m=0.15 * s)


def add_toy(b: Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    """A ball, crate or drum on the floor."""
    rng, s = b.rng, b.rng.uniform(0.15, 0.8)
    b.at(x, z, rng.uniform(0, 6.28))
    h = s if rng.random() < 0.5 else s * rng.uniform(0.3, 1.5)
    b.add(rng.choice((BOX, CYLINDER, ELLIPSOID)), (0, h / 2, 0), (s, h, s), b.mat("any"))


Maker = Callable[..., None]


def add_wall_things(b: Builder, w: float, d: float, h: float, count: int) -> None:
    """Pictures, doors, windows and curtains: flat boxes on the walls of a room centred at the origin."""
    rng = b.rng
    for _ in range(count):
        yaw = rng.choice((0, 1, 1, 2, 3)) * math.pi / 2 if d > 2 * w else rng.randrange(4) * math.pi / 2
        along_z = yaw in (0, math.pi)  # the wall faces along z
        run, reach = (w, d / 2) if along_z else (d, w / 2)
        b.at(0, 0, yaw)
        slide, kind = rng.uniform(-0.42, 0.42) * run, rng.random()
        if kind < 0.45:
            size = (rng.uniform(0.3, 1.4), rng.uniform(0.3, 0.9), 0.04)
            b.add(BOX, (slide, rng.uniform(1.3, 1.7), reach - 0.02), size, b.mat("picture"))
        elif kind < 0.7:
            door = b.mat(rng.choice(("plain", "wood")))
            b.add(BOX, (slide, 1.0, reach - 0.02), (rng.uniform(0.75, 1.0), 2.0, 0.08), door)
        elif kind < 0.88:
            size = (rng.uniform(0.7, 1.6), rng.uniform(0.8, 1.5), 0.03)
            glow = b.mat("tiles", emission=rng.uniform(0.8, 3.0), period_m=(0.5, 0.6), pattern=1, gap=(0.08, 0.08))
            b.add(BOX, (slide, 1.45, reach - 0.01), size, glow)
        else:
            b.add(BOX, (slide, h / 2, reach - 0.08), (rng.uniform(0.4, 1.2), h * 0.95, 0.12), b.mat("stripes"))
