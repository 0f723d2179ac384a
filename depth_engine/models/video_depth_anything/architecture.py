"""The sizes of a Video Depth Anything checkpoint, and the public checkpoints' names for its tensors. Needs no torch.

The public files are state dicts of the authors' classes; this is the one place that knows their layout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PATCH_PX = 14  # side of what the encoder makes a token of
TRAINED_PATCHES = 37  # a side of the pictures that the encoder's places were learnt on: 518 pixels
WINDOW = 32  # frames that the temporal layers were trained for
_TAKEN = {12: (2, 5, 8, 11), 24: (4, 11, 17, 23)}  # blocks in all -> blocks that the head looks at


@dataclass(frozen=True)
class Architecture:
    """What tells Small, Base and Large apart.

    Attributes:
        width: Channels of the encoder; its attention has heads of 64.
        depth: Blocks of the encoder, 12 or 24.
        levels: Channels of the four levels that the head makes of them, fine to coarse.
        features: Channels that the levels are joined in.
    """

    width: int
    depth: int
    levels: tuple[int, int, int, int]
    features: int

    @property
    def taken(self) -> tuple[int, int, int, int]:
        """Which four blocks the head looks at, from 0."""
        return _TAKEN[self.depth]


def architecture_of(shapes: Mapping[str, Sequence[int]], where: str) -> Architecture:
    """The sizes that a public checkpoint's tensors have.

    Args:
        shapes: Public name -> shape.
        where: What to call the checkpoint in errors.

    Raises:
        ValueError: These are not the tensors of a Video Depth Anything.
    """
    blocks = {match[1] for name in shapes if (match := re.match(r"pretrained\.blocks\.(\d+)\.", name))}
    named = ["pretrained.cls_token", *(f"head.projects.{index}.weight" for index in range(4))]
    named += ["head.scratch.layer1_rn.weight", "head.motion_modules.0.temporal_transformer.norm.weight"]
    missing = [name for name in named if name not in shapes]
    if missing:
        raise ValueError(f"{where} holds no Video Depth Anything: {missing[0]} is missing")
    if len(blocks) not in _TAKEN:
        raise ValueError(f"{where} holds no Video Depth Anything: its encoder has {len(blocks)} blocks, not 12 or 24")
    first, second, third, fourth = (int(shapes[name][0]) for name in named[1:5])
    return Architecture(
        int(shapes[named[0]][-1]), len(blocks), (first, second, third, fourth), int(shapes[named[5]][0])
    )


_BLOCK = r"encoder\.dino\.encoder\.layer\.(\d+)\."
_PUBLIC_BLOCK = r"pretrained.blocks.\1."
_TEMPORAL = r"head\.temporal\.(\d+)\."
_PUBLIC_TEMPORAL = r"head.motion_modules.\1.temporal_transformer."
_PUBLIC_MIXER = _PUBLIC_TEMPORAL + "transformer_blocks.0."
_PUBLIC_ATTENTION = _PUBLIC_MIXER + r"attention_blocks.\2."
# This project's name -> the public one. Of the encoder, the names that transformers 4 and 5 have for the same things.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"encoder\.dino\.embeddings\.cls_token", "pretrained.cls_token"),
    (r"encoder\.dino\.embeddings\.position_embeddings", "pretrained.pos_embed"),
    (r"encoder\.dino\.embeddings\.patch_embeddings\.projection", "pretrained.patch_embed.proj"),
    (_BLOCK + r"attention\.(?:attention\.)?(?:query|key|value|[qkv]_proj)", _PUBLIC_BLOCK + "attn.qkv"),
    (_BLOCK + r"attention\.(?:output\.dense|o_proj)", _PUBLIC_BLOCK + "attn.proj"),
    (_BLOCK + r"layer_scale(\d)\.lambda1", _PUBLIC_BLOCK + r"ls\2.gamma"),
    (_BLOCK, _PUBLIC_BLOCK),
    (r"encoder\.dino\.layernorm", "pretrained.norm"),
    (r"head\.project\.", "head.projects."),
    (r"head\.resize\.", "head.resize_layers."),
    *((rf"head\.narrow\.{index}\.", f"head.scratch.layer{index + 1}_rn.") for index in range(4)),
    *(
        (rf"head\.join\.{index}\.{own}\.", f"head.scratch.refinenet{index + 1}.{public}.")
        for index in range(4)
        for own, public in (
            (r"of_level\.first", "resConfUnit1.conv1"),
            (r"of_level\.second", "resConfUnit1.conv2"),
            (r"of_both\.first", "resConfUnit2.conv1"),
            (r"of_both\.second", "resConfUnit2.conv2"),
            ("out", "out_conv"),
        )
    ),
    (r"head\.reduce\.", "head.scratch.output_conv1."),
    (r"head\.to_depth\.", "head.scratch.output_conv2."),
    (_TEMPORAL + r"norm\.", _PUBLIC_TEMPORAL + "norm."),
    (_TEMPORAL + r"enter\.", _PUBLIC_TEMPORAL + "proj_in."),
    (_TEMPORAL + r"leave\.", _PUBLIC_TEMPORAL + "proj_out."),
    (_TEMPORAL + r"norms\.(\d)\.", _PUBLIC_MIXER + r"norms.\2."),
    (_TEMPORAL + r"widen_norm\.", _PUBLIC_MIXER + "ff_norm."),
    (_TEMPORAL + r"widen\.", _PUBLIC_MIXER + "ff.net.0.proj."),
    (_TEMPORAL + r"shrink\.", _PUBLIC_MIXER + "ff.net.2."),
    (_TEMPORAL + r"attention\.(\d)\.query\.", _PUBLIC_ATTENTION + "to_q."),
    (_TEMPORAL + r"attention\.(\d)\.key\.", _PUBLIC_ATTENTION + "to_k."),
    (_TEMPORAL + r"attention\.(\d)\.value\.", _PUBLIC_ATTENTION + "to_v."),
    (_TEMPORAL + r"attention\.(\d)\.out\.", _PUBLIC_ATTENTION + "to_out.0."),
    (_TEMPORAL + r"attention\.(\d)\.places", _PUBLIC_ATTENTION + "pos_encoder.pe"),
)
# In the public files, and used by nothing: training's mask, and what would be added to the coarsest level.
_UNUSED = re.compile(r"pretrained\.mask_token|head\.scratch\.refinenet4\.resConfUnit1\..*")
_THIRDS = {"q": 0, "k": 1, "v": 2}  # in the public files one tensor holds query, key and value, in this order


def public_name(own: str) -> tuple[str, int | None]:
    """Where a tensor of the network is found in the public files.

    Args:
        own: Its name in `VideoDepthNetwork`.

    Returns:
        The public name, and which third of that tensor's rows is meant; None: all of it.
    """
    for pattern, public in _NAMES:
        if re.match(pattern, own):
            name = re.sub(f"^{pattern}", public, own)
            part = re.match(_BLOCK + r"attention\.(?:attention\.)?([qkv])\w*\.", own)
            return name, _THIRDS[part[2]] if part else None
    raise ValueError(f"{own} is no tensor of Video Depth Anything")


def faults(own_shapes: Mapping[str, Sequence[int]], public_shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """What keeps a public checkpoint from being loaded: tensors missing, surplus or misshapen.

    Args:
        own_shapes: Of the network.
        public_shapes: Of the checkpoint.
    """
    expected: dict[str, list[int]] = {}
    for own, shape in own_shapes.items():
        name, third = public_name(own)
        expected[name] = [*shape] if third is None else [3 * shape[0], *shape[1:]]
    found = [f"{name} is missing" for name in expected if name not in public_shapes]
    found += [f"{name} is surplus" for name in public_shapes if name not in expected and not _UNUSED.fullmatch(name)]
    return found + [
        f"{name} has shape {[*public_shapes[name]]}, expected {shape}"
        for name, shape in expected.items()
        if name in public_shapes and [*public_shapes[name]] != shape
    ]
