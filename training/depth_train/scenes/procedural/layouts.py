"""Whole procedural scenes: rooms and open places, their camera and their look, drawn at random."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence

import numpy as np

from depth_train.scenes.procedural.description import (
    BOX,
    CYLINDER,
    ELLIPSOID,
    CameraMotion,
    Scene,
    SceneLook,
    rotation_from_angles,
)
from depth_train.scenes.procedural.materials import hsv
from depth_train.scenes.procedural.motion import clear_the_track
from depth_train.scenes.procedural.objects import (
    Builder,
    Maker,
    add_animal,
    add_bed,
    add_bush,
    add_cabinet,
    add_car,
    add_chair,
    add_clutter,
    add_fence,
    add_hanging_lamp,
    add_house,
    add_lamp,
    add_log,
    add_pales,
    add_person,
    add_plant,
    add_pole,
    add_rock,
    add_sofa,
    add_toy,
    add_tree,
    add_trunk,
    add_wall_things,
    build_table,
)


def _indoor(b: Builder, camera: CameraMotion) -> float:
    """A room, a corridor or a tabletop; returns the field of view in degrees."""
    rng = b.rng
    kind = rng.choice(("room", "room", "room", "corridor", "table", "exhibit", "room"))
    w, d, h = rng.uniform(2.8, 8), rng.uniform(3, 9), rng.uniform(2.3, 3.4)
    if kind == "exhibit":
        w, d, h = rng.uniform(5, 11), rng.uniform(6, 11), rng.uniform(2.6, 4.5)
    if kind == "corridor":
        w, d = rng.uniform(1.6, 3.2), rng.uniform(8, 22)
    papered = kind == "exhibit" and rng.random() < 0.5  # a strong pattern of two colours
    wall = b.mat("picture" if papered else rng.choice(("plain", "plain", "plain", "masonry", "picture", "stripes")))
    if b.materials[wall].pattern == 0:
        b.materials[wall].contrast *= 0.6
    floor = b.mat(rng.choice(("wood", "wood", "tiles", "plain", "soil", "asphalt", "picture")))
    dark = rng.random() < (0.6 if kind == "exhibit" else 0.1)
    ceiling = b.mat("plain", color_a=hsv(rng, (0.05, 0.15), (0.0, 0.1), (0.02, 0.15) if dark else (0.6, 0.95)))
    b.plane(np.zeros(3), np.eye(3), floor)
    b.plane(np.array([0, -h, 0.0]), np.eye(3), ceiling)
    for quarter in range(4):
        yaw = quarter * math.pi / 2
        reach = d / 2 if quarter % 2 == 0 else w / 2
        # Local y must be the wall's normal and local z must run up: patterns then lie level.
        upright = rotation_from_angles(yaw) @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0.0]])
        other = wall if rng.random() < 0.75 else b.mat("plain")
        b.plane(rotation_from_angles(yaw) @ np.array([0, 0, reach]), upright, other)

    margin = 0.55
    camera.position = np.array(
        [rng.uniform(-1, 1) * (w / 2 - margin), rng.uniform(0.5, 1.8), -rng.uniform(0.3, 1.0) * (d / 2 - margin)]
    )
    aim = np.array([rng.uniform(-0.4, 0.4) * w, rng.uniform(0.0, 0.4) * d])
    camera.yaw = math.atan2(aim[0] - camera.position[0], aim[1] - camera.position[2])
    camera.pitch = math.radians(rng.uniform(-22, 6) - (8 if camera.position[1] > 1.4 else 0))
    fov_deg = rng.uniform(35, 75)
    b.taken.append((camera.position[0], camera.position[2], 0.5))
    if kind == "corridor":
        camera.yaw, camera.pitch = rng.gauss(0, 0.15), math.radians(rng.uniform(-12, 4))
    if kind == "table":
        distance = rng.uniform(0.7, 1.3)
        heading = np.array([math.sin(camera.yaw), math.cos(camera.yaw)])
        tx, tz = camera.position[0] + distance * heading[0], camera.position[2] + distance * heading[1]
        camera.position[1] = rng.uniform(1.1, 1.5)
        camera.pitch = -math.atan2(camera.position[1] - 0.75, distance) + rng.uniform(0.0, 0.25)
        b.at(tx, tz, camera.yaw + rng.gauss(0, 0.3))
        top, up, tw, td = (
            b.mat(rng.choice(("wood", "plain", "tiles", "picture"))),
            rng.uniform(0.6, 0.8),
            rng.uniform(0.9, 1.8),
            rng.uniform(0.6, 0.9),
        )
        b.add(BOX, (0, up, 0), (tw, 0.05, td), top)
        b.add(BOX, (0, up / 2, 0), (tw * 0.8, up, td * 0.5), b.mat("wood"))
        add_clutter(b, tw, td, up + 0.025, rng.randint(3, 7))
        b.taken.append((tx, tz, 0.8))

    if kind == "exhibit":
        _exhibit(b, camera, w, d, wall)

    makers: list[Maker] = [
        build_table,
        add_chair,
        add_chair,
        add_sofa,
        add_cabinet,
        add_cabinet,
        add_bed,
        add_lamp,
        add_plant,
        add_toy,
        add_toy,
        add_person,
        add_animal,  # a statue or a pet
    ]
    things = rng.randint(2, 7)
    for _ in range(things):
        maker, yaw = rng.choice(makers), None
        for _attempt in range(8):
            if rng.random() < 0.55:  # with its back against a wall
                quarter = rng.randrange(4)
                yaw = quarter * math.pi / 2
                run, reach = (w, d / 2) if quarter % 2 == 0 else (d, w / 2)
                depth = 1.05 if maker is add_bed else 0.45
                spot = rotation_from_angles(yaw + math.pi) @ np.array([rng.uniform(-0.4, 0.4) * run, 0, reach - depth])
                x, z = float(spot[0]), float(spot[2])
            else:
                yaw = None
                x, z = rng.uniform(-0.5, 0.5) * (w - 1.0), rng.uniform(-0.5, 0.5) * (d - 1.0)
            if b.claim(x, z, 0.75 if maker in (build_table, add_sofa, add_bed) else 0.45):
                maker(b, x, z, 1.0) if maker in (add_person, add_animal) else maker(b, x, z, 1.0, yaw)
                if maker in (add_person, add_toy, add_animal) and rng.random() < 0.6:
                    b.move(rng.uniform(0.01, 0.06), rng.uniform(0.0, 0.4))
                    b.motions[b.thing].travel_m = rng.uniform(0.2, 0.7)
                break
    add_wall_things(b, w, d, h, rng.randint(1, 6) + {"corridor": 3, "exhibit": 5}.get(kind, 0))
    if rng.random() < 0.25:
        add_hanging_lamp(b, rng.uniform(-0.3, 0.3) * w, rng.uniform(-0.2, 0.4) * d, h)
    if rng.random() < 0.4:
        b.at(rng.uniform(-0.2, 0.2) * w, rng.uniform(-0.1, 0.3) * d)
        b.add(BOX, (0, 0.008, 0), (w * 0.5, 0.016, min(d, 4) * 0.5), b.mat(rng.choice(("picture", "stripes", "tiles"))))
    if rng.random() < 0.3:
        b.at(0, rng.uniform(0, 0.3) * d)
        b.add(CYLINDER, (0, h - 0.06, 0), (0.5, 0.1, 0.5), b.mat("plain", emission=1.5))
    travel = rng.uniform(0.2, min(w, d) / 3)
    camera.travel_m, camera.speed_m = travel, rng.uniform(0.0, 0.08)
    camera.limits_m = (w / 2 - margin, d / 2 - margin)
    return fov_deg


def _exhibit(b: Builder, camera: CameraMotion, w: float, d: float, wall: int) -> None:
    """Something large in the middle of the room, often coloured as the walls are, often behind a low fence."""
    rng = b.rng
    camera.position = np.array([rng.uniform(-0.25, 0.25) * w, rng.uniform(1.0, 1.9), -d / 2 + rng.uniform(0.6, 1.5)])
    camera.yaw, camera.pitch = rng.gauss(0, 0.15), math.radians(rng.uniform(-12, 2))
    x, z = rng.uniform(-0.25, 0.25) * w, rng.uniform(-0.15, 0.2) * d
    b.claim(x, z, 1.2)
    rng.choice((add_animal, add_animal, add_animal, add_plant, add_person))(b, x, z, rng.uniform(1.0, 1.8))
    if rng.random() < 0.6:
        for primitive in b.primitives:
            if primitive.thing == b.thing and not primitive.leaf_m:
                primitive.material = wall
    if rng.random() < 0.6:
        ahead = camera.position[2] + rng.uniform(1.0, 2.0)
        add_pales(b, rng.uniform(-1, 1), ahead, rng.gauss(0, 0.12), rng.uniform(0.5, 1.0), rng.uniform(3, 8))


def _scatter(b: Builder, makers: Sequence[Maker], count: int, half_angle: float, near: float, far: float) -> None:
    """Stand things on the ground ahead of the camera, more of them near than far."""
    rng = b.rng
    for _ in range(count):
        for _attempt in range(6):
            distance = math.exp(rng.uniform(math.log(near), math.log(far)))
            angle = rng.uniform(-half_angle, half_angle)
            x, z = distance * math.sin(angle), distance * math.cos(angle)
            maker = rng.choice(makers)
            radius = {add_house: 6.0, add_car: 2.3, add_tree: 0.9, add_fence: 1.5}.get(maker, 0.7)
            if maker is add_house and distance < 9 or not b.claim(x, z, radius):
                continue
            maker(b, x, z, rng.uniform(0.6, 1.4))
            mobile = maker in (add_person, add_animal, add_car)
            if mobile and len(b.motions) < 3 and rng.random() < 0.45:
                b.move(
                    rng.uniform(0.02, 0.3 if maker is add_car else 0.12), rng.uniform(0.0, 0.3) * (maker is not add_car)
                )
            break


def _background(b: Builder) -> None:
    """What ends the ground before the horizon: hills, a line of trees, far houses; sometimes nothing."""
    rng = b.rng
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 3)):
            distance, angle = rng.uniform(120, 600), rng.uniform(-0.9, 0.9)
            b.at(distance * math.sin(angle), distance * math.cos(angle), rng.uniform(0, 3))
            size = (
                distance * rng.uniform(0.5, 1.6),
                distance * rng.uniform(0.1, 0.6),
                distance * rng.uniform(0.5, 1.0),
            )
            b.add(ELLIPSOID, (0, 0, 0), size, b.mat("hill"))
    if rng.random() < 0.6:
        leaves, distance = b.mat("leaves", feature_m=3.0), math.exp(rng.uniform(math.log(15), math.log(100)))
        for i in range(rng.randint(3, 6)):
            x = (i / 2 - 1.2 + rng.uniform(-0.2, 0.2)) * distance * 0.7
            b.at(x, distance * rng.uniform(0.85, 1.2))
            w, h = distance * rng.uniform(0.4, 0.9), rng.uniform(4, 14)
            b.add(ELLIPSOID, (0, 0.35 * h, 0), (w, h, 0.3 * w), leaves, leaf_m=0.08 * h)
    if rng.random() < 0.25:
        _scatter(b, [add_house], rng.randint(1, 4), 0.7, 25.0, 90.0)


def _outdoor(b: Builder, camera: CameraMotion) -> float:
    """A park, a street, a trail in a wood or an enclosure; returns the field of view in degrees."""
    rng = b.rng
    kind = rng.choice(("park", "park", "street", "street", "trail", "trail", "enclosure", "park"))
    steep = {"trail": 0.12, "park": 0.05, "enclosure": 0.03, "street": 0.01}[kind]
    b.slope = (rng.gauss(0, steep), rng.gauss(0, steep))
    fov_deg = rng.uniform(32, 68) if kind != "trail" else rng.uniform(50, 75)
    ground_kind = {"street": "asphalt", "trail": rng.choice(("soil", "grass", "leaves"))}.get(
        kind, rng.choice(("grass", "grass", "soil"))
    )
    normal = np.array([-b.slope[0], 1.0, -b.slope[1]])
    normal /= np.linalg.norm(normal)
    right = np.cross(normal, np.array([0, 0, 1.0]))
    right /= np.linalg.norm(right)
    b.plane(np.zeros(3), np.stack([right, normal, np.cross(right, normal)], axis=1), b.mat(ground_kind))
    camera.position = np.array([rng.uniform(-0.3, 0.3), math.exp(rng.uniform(math.log(0.5), math.log(2.2))), 0.0])
    if rng.random() < 0.12:
        camera.position[1] = rng.uniform(2.5, 6.0)
    camera.pitch = math.radians(rng.uniform(-18, 6) - 3 * max(camera.position[1] - 2, 0))
    camera.yaw = rng.gauss(0, 0.12)
    half_angle = math.radians(fov_deg) * 0.75

    if kind in ("park", "enclosure") and rng.random() < 0.6:
        for _ in range(rng.randint(1, 3)):
            distance, angle, w = rng.uniform(8, 40), rng.uniform(-0.8, 0.8), rng.uniform(5, 25)
            b.at(distance * math.sin(angle), distance * math.cos(angle))
            b.add(
                ELLIPSOID,
                (0, 0, 0),
                (w, rng.uniform(0.05, 0.25) * w, w * rng.uniform(0.6, 1.2)),
                b.primitives[0].material,
            )
    if kind == "park":
        if rng.random() < 0.5:
            path = b.mat(rng.choice(("soil", "asphalt")))
            b.path = (rng.uniform(0.6, 2.0), rng.uniform(0, 3), rng.uniform(0.05, 0.2), rng.uniform(0, 6.28), path)
        _scatter(b, [add_animal, add_person, add_bush, add_tree], rng.randint(1, 2), half_angle * 0.6, 2.0, 5.0)
        makers = [
            add_tree,
            add_tree,
            add_tree,
            add_bush,
            add_bush,
            add_rock,
            add_person,
            add_animal,
            add_fence,
            add_pole,
            add_house,
        ]
        _scatter(b, makers, rng.randint(4, 9), half_angle, 3.0, 40.0)
    elif kind == "enclosure":
        distance = rng.uniform(6, 22)
        b.at(rng.uniform(-3, 3), distance, rng.gauss(0, 0.25))
        backs = ("masonry", "rock", "plain", "wood", "leaves", "stripes")
        h = rng.uniform(1.0, 5.0)
        b.add(BOX, (0, h / 2 - 0.3, 0), (rng.uniform(12, 50), h + 0.6, rng.uniform(0.4, 3)), b.mat(rng.choice(backs)))
        _scatter(b, [add_animal], rng.randint(1, 2), half_angle * 0.5, 2.2, 6.0)
        if len(b.motions) == 0 and rng.random() < 0.5 and b.thing and any(p.thing == b.thing for p in b.primitives):
            b.move(rng.uniform(0.01, 0.06), rng.uniform(0.0, 0.3))
        makers = [add_rock, add_rock, add_log, add_trunk, add_tree, add_bush, add_pole, add_fence]
        _scatter(b, makers, rng.randint(4, 9), half_angle, 2.0, distance)
    elif kind == "trail":
        path = b.mat(rng.choice(("soil", "soil", "rock")))
        b.path = (rng.uniform(0.3, 1.0), rng.uniform(0, 1.2), rng.uniform(0.1, 0.4), rng.uniform(0, 6.28), path)
        camera.pitch = math.radians(rng.uniform(-18, 0))
        for _ in range(rng.randint(5, 11)):
            z, side = math.exp(rng.uniform(math.log(2), math.log(35))), rng.choice((-1, 1))
            x = side * (1.2 + rng.random() ** 1.5 * z * 0.8)
            if b.claim(x, z, 0.5):
                rng.choice((add_trunk, add_trunk, add_trunk, add_tree, add_bush, add_bush))(
                    b, x, z, rng.uniform(0.6, 1.5)
                )
        _scatter(b, [add_rock, add_rock, add_log, add_bush, add_person], rng.randint(1, 5), half_angle, 1.5, 15.0)
        if rng.random() < 0.6:  # banks on the sides
            for side in (-1, 1):
                b.at(side * rng.uniform(5, 12), rng.uniform(5, 25))
                b.add(ELLIPSOID, (0, -0.3, 0), (rng.uniform(6, 12), rng.uniform(1, 5), 40), b.primitives[0].material)
    else:
        half_road = rng.uniform(2.5, 7.0)
        walk = b.mat(rng.choice(("tiles", "asphalt", "masonry")))
        b.materials.append(b.materials[b.primitives[0].material])
        b.primitives[0].material = walk  # the plane is the pavement, the road is its path
        b.path = (half_road * 0.6, 0.0, 0.1, 0.0, len(b.materials) - 1)
        for side in (-1, 1):
            z = rng.uniform(-8, 2)
            for _ in range(rng.randint(2, 4)):
                length, h = rng.uniform(5, 16), rng.uniform(2.8, 16)
                b.at(side * (half_road + rng.uniform(0, 1.5) + 4), z + length / 2)
                b.add(
                    BOX,
                    (0, h / 2 - 0.5, 0),
                    (8, h + 1, length),
                    b.mat(rng.choice(("facade", "facade", "masonry", "plain"))),
                )
                z += length + rng.choice((0.0, 0.0, 1.0, 5.0))
        camera.position[0] = rng.uniform(-0.6, 0.6) * half_road
        camera.pitch = math.radians(rng.uniform(-12, 5))
        for _ in range(rng.randint(3, 8)):
            side, z = rng.choice((-1, 1)), math.exp(rng.uniform(math.log(3), math.log(40)))
            maker = rng.choice((add_car, add_car, add_person, add_person, add_pole, add_tree, add_animal))
            x = side * half_road * (rng.uniform(0.2, 0.55) if maker is add_car else rng.uniform(0.5, 0.95))
            if b.claim(x, z, 2.3 if maker is add_car else 0.5):
                maker(b, x, z, rng.uniform(0.6, 1.2) if maker is not add_animal else 0.6)
                if maker in (add_car, add_person, add_animal) and len(b.motions) < 3 and rng.random() < 0.35:
                    b.move(rng.uniform(0.02, 0.25 if maker is add_car else 0.08), 0.0)
    if kind != "street" or rng.random() < 0.5:
        _background(b)
    camera.travel_m, camera.speed_m = rng.uniform(2.0, 6.0), rng.uniform(0.0, 0.25)
    if kind == "trail":
        camera.speed_m = rng.uniform(0.05, 0.25)
    return fov_deg


def _animate_camera(rng: random.Random, camera: CameraMotion) -> None:
    """Choose how the camera moves: still, dolly, truck, pan, orbit, hand-held, and mixes of them."""
    camera.roll = rng.gauss(0, 0.03)
    camera.phase = rng.uniform(-0.6, 0.6)
    forward, right = rotation_from_angles(camera.yaw)[:, 2], rotation_from_angles(camera.yaw)[:, 0]
    mode = rng.choice(("still", "dolly", "dolly", "truck", "mix", "mix", "orbit"))
    weights = {
        "dolly": (1.0, rng.gauss(0, 0.1)),
        "truck": (rng.gauss(0, 0.1), 1.0),
        "mix": (rng.gauss(0, 1), rng.gauss(0, 1)),
    }
    ahead, aside = weights.get(mode, (0.0, 0.0))
    length = math.hypot(ahead, aside) or 1.0
    camera.direction = (ahead * forward + aside * right) / length * rng.choice((-1, 1, 1))
    camera.direction[1] = -rng.gauss(0, 0.1) * (mode != "still")
    if mode in ("mix", "still", "truck") and rng.random() < 0.6:
        camera.pan = (rng.uniform(0.05, 0.4), rng.uniform(0.02, 0.12), rng.uniform(-0.8, 0.8))
    if rng.random() < 0.3:
        camera.tilt = (rng.uniform(0.02, 0.12), rng.uniform(0.02, 0.12), rng.uniform(-0.8, 0.8))
    if mode == "orbit":
        camera.orbit_distance_m = rng.uniform(1.5, 6.0) if math.isinf(camera.limits_m[0]) else rng.uniform(0.8, 2.0)
        rate = camera.speed_m / camera.orbit_distance_m
        amplitude = rng.uniform(0.15, 0.5)
        camera.orbit = (amplitude, rate / amplitude * rng.choice((-1, 1)), rng.uniform(-0.6, 0.6))
    shake = rng.choice((0.0, 0.0, 0.3, 1.0, 1.0, 2.5))
    scales = (0.006, 0.006, 0.004, 0.004, 0.004)  # x, up, z in metres; yaw, pitch in radians... at shake = 1
    camera.jitter = [
        (shake * scale * rng.gauss(0, 1), rng.uniform(0.15, 1.2), rng.uniform(0, 6.28))
        for scale in scales
        for _ in range(3)
    ]


def _draw_look(rng: random.Random, indoor: bool, height_m: float) -> SceneLook:
    """Draw light, sky, haze and the camera's rendition."""
    azimuth, elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(20, 75))
    to_light = (
        math.cos(elevation) * math.sin(azimuth),
        -math.sin(elevation),
        math.cos(elevation) * math.cos(azimuth),
    )
    overcast = rng.random() < 0.4
    power = (rng.uniform(0.1, 0.6) if indoor else rng.uniform(0.0, 0.35)) if overcast else rng.uniform(0.6, 2.0)
    warmth = rng.uniform(0.0, 0.25)
    sky_white = rng.uniform(0.0, 0.4) if not overcast else rng.uniform(0.75, 1.0)
    blue, gray = np.array((0.16, 0.33, 0.75)), np.full(3, rng.uniform(0.6, 1.0))
    zenith = (blue * rng.uniform(0.6, 1.2) * (1 - sky_white) + gray * sky_white) * rng.uniform(0.7, 1.5)
    horizon = (0.4 * zenith + 0.6 * np.array((0.85, 0.9, 1.0)) * rng.uniform(0.8, 1.3)) * np.array(
        (1 + warmth, 1, 1 - warmth)
    )
    ambient = rng.uniform(0.25, 0.6)
    up = np.full(3, ambient) if indoor else ambient * (0.6 * zenith / zenith.mean() + 0.4)
    lamp = None
    if indoor and rng.random() < 0.8:
        lamp = (rng.uniform(-1.5, 1.5), -rng.uniform(1.6, height_m), rng.uniform(-1.5, 2.5), rng.uniform(0.3, 1.5))
    balance = np.exp(np.array([rng.gauss(0, 0.1), 0.0, rng.gauss(0, 0.1)]))
    return SceneLook(
        to_light,
        (power * (1 + 0.6 * warmth), power, power * (1 - 0.8 * warmth)),
        tuple(up),
        tuple(up * rng.uniform(0.3, 0.8)),
        shadows=not overcast or indoor,
        dapple=rng.uniform(0.3, 1.0) if not indoor and rng.random() < 0.25 else 0.0,
        lamp=lamp,
        sky_zenith=tuple(zenith),
        sky_horizon=tuple(horizon),
        cloud=rng.uniform(0.0, 0.9) if rng.random() < 0.7 else 0.0,
        haze_m=math.exp(rng.uniform(math.log(40), math.log(500))) if not indoor and rng.random() < 0.45 else math.inf,
        exposure=math.exp(rng.uniform(math.log(0.10), math.log(0.38))),
        white_balance=tuple(balance),
        gamma=rng.uniform(1.9, 2.5),
        contrast=rng.uniform(0.0, 1.0),
        saturation=rng.uniform(0.5, 1.2),
        vignette=rng.uniform(0.0, 0.5) if rng.random() < 0.4 else 0.0,
        blur=rng.uniform(0.1, 0.8) if rng.random() < 0.4 else 0.0,
        noise=rng.uniform(0.002, 0.03) if rng.random() < 0.7 else 0.0,
    )


@functools.lru_cache(maxsize=64)
def build_scene(seed: int) -> Scene:
    """Draw the whole scene of a seed; treat the result as constant."""
    rng = random.Random(seed)
    b = Builder(rng)
    camera = CameraMotion(np.zeros(3))
    indoor = rng.random() < 0.5
    fov_deg = (_indoor if indoor else _outdoor)(b, camera)
    _animate_camera(rng, camera)
    if rng.random() < 0.25:  # with the scenes that drew none, about six clips of ten show a still world
        b.motions.clear()
    look = _draw_look(rng, indoor, 2.2)
    scene = Scene(seed, fov_deg, indoor, camera, b.slope, b.primitives, b.materials, b.motions, b.path, look)
    clear_the_track(scene)
    return scene
