"""The bundled generator: the first frame gives the look, the control the motion, one call of a small network a window.

A window begins with known frames: the given first frame, or the last frames of the window before. The newest of them is
the anchor: for each new frame the network says from where in the anchor each pixel comes, and what changes besides. It
starts from how the control itself moved, which optical flow finds. The known frames go in clean, flagged by their own
noise level, as in the engine's `context` strategy. Pixels and latents are the same, up to their order (patch codec).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth2video.generators.controlnet import ControlledUNet, DepthControlNet, control_pixels, run_controlled
from depth_engine.models.loading import load_model
from depth_engine.plain_data import from_plain, read_json
from depth_engine.runs.background import read_ahead
from depth_engine.runs.pieces import Piece

if TYPE_CHECKING:
    from depth2video.generators.interface import Request

OUT_CHANNELS = 5  # of a pixel: how red, green and blue change, and the flow
FLOW_UNIT = 0.05  # shares of the width that one unit of the network's output stands for
_TIME_IDS = (6.0, 127.0, 0.0)  # SVD's micro-conditioning, of no meaning here; the training keeps it fixed


@dataclass(frozen=True)
class SmallSpec:
    """What a small generator expects; `generator.json` beside its weights.

    Attributes:
        patch: Side of a codec patch, pixels.
        window: Frames per window, the known ones included.
        known: Frames that a window takes over from the one before.
        sigma: Noise level that flags new frames.
        context_c_noise: c_noise that flags known ones.
        multiple: What the sides of a picture must be divisible by, pixels.
    """

    patch: int = 4
    window: int = 8
    known: int = 2
    sigma: float = 80.0
    context_c_noise: float = -1.5
    multiple: int = 16

    def write(self, folder: Path) -> None:
        """Write `generator.json`."""
        (folder / "generator.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> SmallSpec:
        """Read `generator.json`.

        Raises:
            ValueError: It is missing or not as it should be.
        """
        file = folder / "generator.json"
        if not file.is_file():
            raise ValueError(f"generator: {file} is missing; give a folder of this project's small generator")
        return from_plain(cls, read_json(file), str(file))


class Steered(nn.Module):
    """A UNet and the ControlNet that steers it.

    Args:
        unet: The UNet.
        controlnet: Its ControlNet.
    """

    def __init__(self, unet: ControlledUNet, controlnet: DepthControlNet) -> None:
        super().__init__()
        self.unet, self.controlnet = unet, controlnet

    def forward(
        self, inputs: tuple[Tensor, Tensor, Tensor, Tensor], control: Tensor | None, scale: float = 1.0
    ) -> Tensor:
        """See `run_controlled`."""
        return run_controlled(self.unet, self.controlnet, inputs, control, scale)


class Predicted(NamedTuple):
    """New frames of a window.

    Attributes:
        rgb: `[B, n, 3, H, W]` around [-1, 1], unclipped.
        flow: Where in the anchor each pixel comes from, relative to its own place: `[B, n, 2, H, W]`, x then y, in
            shares of the picture's width.
    """

    rgb: Tensor
    flow: Tensor


def predict_frames(
    network: nn.Module,
    spec: SmallSpec,
    known: Tensor,
    control: Tensor,
    scale: float = 1.0,
    motion: Tensor | None = None,
) -> Predicted:
    """The new frames of a window; differentiable.

    Args:
        network: A `Steered`.
        spec: What it expects.
        known: Pixels of the first k frames, `[B, k, 3, H, W]` in [-1, 1], k >= 1.
        control: Of all frames, `[B, T, 3, H, W]` in [-1, 1]. The ControlNet gets its grey and how it moved.
        scale: Of the control; 0 leaves it out.
        motion: `control_motion` of the control from the last known frame, where that has been found already.
    """
    batch, count = known.shape[:2]
    frames = control.shape[1]
    latents = F.pixel_unshuffle(known.flatten(0, 1), spec.patch).unflatten(0, (batch, count))
    anchor = latents[:, -1:].expand(-1, frames, -1, -1, -1)
    unknown = latents.new_zeros(batch, frames - count, *latents.shape[2:])
    sample = torch.cat([anchor, torch.cat([latents, unknown], dim=1)], dim=2)
    c_noise = sample.new_full((batch, frames), math.log(spec.sigma) / 4)
    c_noise[:, :count] = spec.context_c_noise
    steered = cast(Steered, getattr(network, "module", network))  # wrapped for several processes
    if not scale:
        motion = control.new_zeros(batch, frames, 2, *control.shape[-2:])
    elif motion is None:
        motion = control_motion(control, count - 1)
    steer = torch.cat([control[:, :, :1], motion / FLOW_UNIT], dim=2)
    width = int(dict(steered.unet.config)["cross_attention_dim"])
    inputs = (sample, c_noise, sample.new_zeros(batch, 1, width), sample.new_tensor(_TIME_IDS).expand(batch, 3))
    out = network(inputs, steer, scale)[:, count:].float()
    pixels = F.pixel_shuffle(out.flatten(0, 1), spec.patch)  # [B n, 5, H, W]: change, flow
    carried = scale * steered.controlnet.motion_gain * motion[:, count:]
    flow = FLOW_UNIT * pixels[:, 3:] + carried.flatten(0, 1)
    from_anchor = known[:, -1:].expand(-1, frames - count, -1, -1, -1).flatten(0, 1)
    rgb = sample_at(from_anchor, flow) + pixels[:, :3]
    return Predicted(*(values.unflatten(0, (batch, frames - count)) for values in (rgb, flow)))


def control_motion(control: Tensor, anchor: int) -> Tensor:
    """Where in the anchor's control each pixel of a frame's control is found, by dense inverse search.

    DIS optical flow (Kroeger et al., ECCV 2016; OpenCV's) between the grey pictures that the depth is: what moves in
    depth moves in the picture, but where depth is flat it can only be guessed.

    Args:
        control: `[B, T, 3, H, W]` in [-1, 1].
        anchor: Index of a frame.

    Returns:
        `[B, T, 2, H, W]`, x then y, in shares of the width, relative to each pixel's own place.
    """
    import cv2

    cv: Any = cv2  # its stubs lack this flow
    search = cv.DISOpticalFlow_create(cv.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = ((control[:, :, 0] + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
    flow = np.stack([[search.calc(frame, clip[anchor], None) for frame in clip] for clip in grey])
    return torch.from_numpy(flow).movedim(-1, 2).to(control) / control.shape[-1]


def sample_at(pictures: Tensor, flow: Tensor) -> Tensor:
    """Bilinear samples of pictures `[N, C, H, W]`, `flow` away from each pixel; beyond the rim, the rim.

    Args:
        pictures: What is sampled.
        flow: `[N, 2, H, W]`, x then y, in shares of the width.
    """
    height, width = pictures.shape[-2:]
    y = (torch.arange(height, device=flow.device, dtype=flow.dtype) * 2 + 1) / height - 1
    x = (torch.arange(width, device=flow.device, dtype=flow.dtype) * 2 + 1) / width - 1
    grid = torch.stack([x.expand(height, width) + 2 * flow[:, 0], y[:, None] + 2 * width / height * flow[:, 1]], dim=-1)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


class SmallGenerator:
    """Makes a clip of any length, window by window.

    Args:
        network: UNet and ControlNet.
        spec: What they expect.
    """

    def __init__(self, network: Steered, spec: SmallSpec) -> None:
        self._network, self._spec = network.eval(), spec
        self.window, self.stride = spec.window, spec.window - spec.known
        self.size_multiple = spec.multiple

    @torch.no_grad()
    def generate(
        self, control: Iterator[np.ndarray], request: Request, *, state: dict[str, Tensor] | None
    ) -> Iterator[Piece]:
        """See `generators.Generator`. The first frame of the clip is the given image itself.

        Raises:
            ValueError: There is no first frame, or it is not of the control's size.
        """
        device = next(self._network.parameters()).device
        frames = iter(control)
        if state:
            known, known_control = state["known"].to(device), state["control"].to(device)
        else:
            first = next(frames, None)
            if first is None:
                return
            if request.image is None:
                raise ValueError("--image: is missing; the bundled generator needs the first frame")
            if request.image.shape != first.shape:
                raise ValueError(
                    f"--image: {list(request.image.shape)} is not of the control's size {list(first.shape)}"
                )
            known = control_pixels(request.image[None]).to(device)
            known_control = control_pixels(first[None]).to(device)
            yield Piece(request.image[None], self._state(known, known_control), {"control": first[None]})
        # With control switched off for this call of the network, the first frame is all there is to go by.
        scale = request.control_scale if request.control_start <= 0 else 0.0

        def windows() -> Iterator[tuple[np.ndarray, Tensor, Tensor | None]]:
            held = known_control
            while chunk := list(islice(frames, self.window - len(held))):
                new = np.stack(chunk)
                given = torch.cat([held, control_pixels(new).to(device)])
                yield new, given, control_motion(given[None], len(held) - 1) if scale else None
                held = given[-self._spec.known :]

        # The next window's motion is looked for beside the network's work on this one.
        with closing(read_ahead(windows(), 1)) as ahead:
            for chunk, given, motion in ahead:
                new = predict_frames(self._network, self._spec, known[None], given[None], scale, motion)
                rgb = ((new.rgb[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
                # What goes on is what was delivered, so that a later process goes on with the same numbers.
                known = torch.cat([known, rgb.float() / 127.5 - 1])[-self._spec.known :]
                state = self._state(known, given[-self._spec.known :])
                yield Piece(rgb.movedim(1, -1).cpu().numpy(), state, {"control": chunk})

    @staticmethod
    def _state(known: Tensor, control: Tensor) -> dict[str, Tensor]:
        return {"known": known.cpu(), "control": control.cpu()}


def load_small(folder: Path, *, device: torch.device, dtype: torch.dtype = torch.float32) -> SmallGenerator:
    """Load a small generator.

    Args:
        folder: Its checkpoint.
        device: Where it runs.
        dtype: In which it computes.

    Raises:
        ValueError: A file is missing or damaged.
    """
    spec = SmallSpec.read(folder)
    unet = load_model(ControlledUNet, folder / "unet", dtype, device)
    controlnet = load_model(DepthControlNet, folder / "controlnet", dtype, device)
    return SmallGenerator(Steered(unet, controlnet), spec)
