"""Pictures that one thing fills: a person, an animal, a piece of furniture."""

from __future__ import annotations

import math

import numpy as np

from depth_train.scenes.models import indoors, outdoors, shapes
from depth_train.scenes.models.builder import Builder, Mover, Place, Stand
from depth_train.scenes.models.lighting import Lamp


def close_up(b: Builder) -> Place:
    """One model that fills the picture: a face, a pet, a thing; in a room or outdoors, or before one colour."""
    place = b.pick((indoors.room, outdoors.yard, outdoors.park))(b) if b.chance(0.75) else _before_a_sheet(b)
    found = b.model(
        b.pick((("person",), ("person",), ("person",), ("animal",), ("prop",), ("furniture",), ("bike", "car")))
    )
    if found is None:
        return place
    mesh = found[0]
    extent = mesh.bounds[1] - mesh.bounds[0]
    big = float(extent.max())
    at = np.array([b.uniform(-0.8, 0.8), 0.0, b.uniform(-0.5, 0.8)])
    up = b.uniform(0.5, 1.0) if big < 0.5 else 0.0
    if up:
        b.still.append(
            shapes.box((at[0], -up / 2, at[2]), (b.uniform(0.3, 1.2), up, b.uniform(0.3, 1.0)), b.surface("floor", 0.4))
        )
    yaw = b.uniform(0, 2 * math.pi)
    if b.chance(0.5):
        b.movers.append(Mover(mesh, (at[0], -up, at[2]), yaw, 0.0, b.uniform(0.1, 1.2), b.uniform(0.05, 0.3)))
    else:
        b.put(mesh, at[0], at[2], yaw, up)
    parts = np.array([at + [0, -up - extent[1] * share, 0] for share in (0.5, 0.75, 0.9, 0.95)])
    far = max(0.35, big * 0.9)
    lowest = max(0.15, up + float(extent[1]) * 0.3)
    stand = Stand(
        (at[0] - far, at[0] + far),
        (at[2] - far, at[2] + far),
        (lowest, max(lowest + 0.1, up + float(extent[1]) * 1.1 + 0.1)),
        targets=parts,
        motions=("hand", "orbit", "pan", "still"),
    )
    return Place(b.still, b.movers, place.light, [stand])


def _before_a_sheet(b: Builder) -> Place:
    """A studio: a floor and a background of one colour, which meet in a curve."""
    cover = b.plain(0.1, 0.98, 0.6)
    profile = np.array([[0, -6, 0], [0, 1.0, 0], [-0.3, 1.8, 0], [-1.0, 2.4, 0], [-5, 2.6, 0]])
    for (y0, z0, _), (y1, z1, _) in zip(profile[:-1], profile[1:], strict=True):
        b.still.append(shapes.quad((-8, y0, z0), (16, 0, 0), (0, y1 - y0, z1 - z0), cover))
    b.lamps.append(Lamp((b.uniform(-3, 3), -b.uniform(2, 4), b.uniform(-3, 0)), (8.0, 7.5, 7.0)))
    return Place(b.still, b.movers, b.roomlight(False), [])
