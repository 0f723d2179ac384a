"""Procedural scenes as views of the store: their pictures taken back to linear light, about."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from depth_train.scenes.models.scene import RenderedView
from depth_train.scenes.models.views import SIZES
from depth_train.scenes.procedural.clips import make_clips

# A picture's code values are about this power of linear light.
_GAMMA = 2.2


def render_procedural(seed: int, views: int, frames: int) -> Iterator[tuple[RenderedView, dict[str, str]]]:
    """Views of `views` scenes that begin at a seed's.

    Args:
        seed: Decides everything.
        views: Number of scenes, one view each.
        frames: Frames of each view.

    Yields:
        Each view, with an empty list of files that did not load.
    """
    for number in range(views):
        height, width = SIZES[int(np.random.default_rng([seed, number, 73]).integers(len(SIZES)))]
        clip = make_clips([seed * views + number], frames, height, width)[0]
        radiance = ((clip.rgb.numpy() + 0.5) / 255) ** np.float32(_GAMMA)
        poses = clip.world_from_camera.numpy()
        yield (
            RenderedView(
                radiance.astype(np.float16), clip.depth_m.numpy(), clip.K.numpy(), poses, "procedural", "procedural"
            ),
            {},
        )
