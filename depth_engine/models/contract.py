"""What the engine asks of a network that gives depth. Each family of networks implements it in a folder of its own.

The engine reads frames, finds shots, and hands a network as many new frames as it asks for, with what it kept of the
window before (`Carry`). Everything else is the network's own: the size that it works at, how windows overlap, what
passes from one to the next, how many frames it computes at once, and in which precision.

A family has two classes. A `Checkpoint` was found on disk, and answers all that can be asked before weights load; a
`DepthNetwork` is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from depth_engine.models.resize import ModelSize
    from depth_engine.models.svd.noise import Noise

Kind = Literal["disparity", "depth", "metric"]

_COUNTS = "counts"
_OF_THE_MODEL = "model."


@dataclass(frozen=True)
class Carry:
    """All that the next window needs of the past. Bounded by the window.

    Attributes:
        frames_read: Frames of the clip consumed so far.
        frames_done: Frames whose depth was given out.
        shot_start: First frame of the current shot, in frames of the clip.
        state: What the network kept; empty before a shot's first window.
    """

    frames_read: int = 0
    frames_done: int = 0
    shot_start: int = 0
    state: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> Carry:
        """The same on a device."""
        return replace(self, state={name: tensor.to(device) for name, tensor in self.state.items()})

    def next_shot(self, read: int, done: int) -> Carry:
        """What is left after a shot's last window: nothing but counts.

        Args:
            read: Frames that this window read.
            done: Frames whose depth it gave out.
        """
        frames_read = self.frames_read + read
        return Carry(frames_read, self.frames_done + done, shot_start=frames_read)

    def next_window(self, read: int, done: int, state: Mapping[str, Tensor]) -> Carry:
        """What the next window of the shot needs; arguments as for `next_shot`, and what the network kept."""
        return replace(self, frames_read=self.frames_read + read, frames_done=self.frames_done + done, state=state)

    def to_tensors(self) -> dict[str, Tensor]:
        """As tensors, to be kept on disk."""
        import torch

        counts = torch.tensor([self.frames_read, self.frames_done, self.shot_start])
        return {_COUNTS: counts, **{_OF_THE_MODEL + name: tensor for name, tensor in self.state.items()}}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Carry:
        """Read back what `to_tensors` made; of nothing, the carry that a clip begins with."""
        if not tensors:
            return cls()
        state = {name.removeprefix(_OF_THE_MODEL): held for name, held in tensors.items() if name != _COUNTS}
        return cls(*tensors[_COUNTS].tolist(), state=state)


@dataclass(frozen=True)
class WindowResult:
    """What one window finished.

    Attributes:
        depth: Depth of frames that nothing changes any more, float32 `[n, h, w]` on the CPU; n may be 0. Relative depth
            lies in [0, 1] where the checkpoint's `bounded` says so.
        carry: State to go on from.
    """

    depth: Tensor
    carry: Carry


class Settings(Protocol):
    """What every family's settings have; the dataclass of a family has more."""

    @property
    def window(self) -> int:
        """Frames that the network sees at once."""
        ...

    @property
    def stride(self) -> int:
        """New frames among them."""
        ...

    @property
    def seed(self) -> int:
        """Of the noise; 0 where there is none."""
        ...


class Checkpoint(Protocol):
    """A checkpoint that was found, and whose files are whole; nothing heavy is loaded."""

    @property
    def name(self) -> str:
        """As the caller named it."""
        ...

    @property
    def spec(self) -> Any:
        """What the checkpoint expects: a dataclass of its family."""
        ...

    @property
    def kind(self) -> Kind:
        """`disparity`, `depth` or `metric`."""
        ...

    @property
    def bounded(self) -> bool:
        """Whether values lie in [0, 1]; if not, the range of a clip is known at its end."""
        ...

    @property
    def align_corners(self) -> bool:
        """How depth comes back to the picture's size: the centres of the corner pixels stay, or the picture's edges."""
        ...

    def choose_settings(self, **given: Any) -> Any:
        """Complete, checked settings, a dataclass with all of `Settings`.

        Raises:
            ValueError: Names the argument, the value and what is accepted; also one that would have no effect.
        """
        ...

    def size_of(self, height: int, width: int, settings: Any) -> ModelSize:
        """The size that frames of a size are worked on at."""
        ...

    def windows_of(self, frames: int, settings: Any) -> int:
        """How many windows a shot of so many frames takes."""
        ...

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed, hashes of the weights included; plain data."""
        ...

    def weights_sha256(self) -> str:
        """SHA-256 of the weights, in hexadecimal."""
        ...

    def facts(self) -> dict[str, Any]:
        """How it was asked for, for the sidecar; names of options."""
        ...

    def notes(self, settings: Any) -> list[str]:
        """What a user should know before it runs."""
        ...

    def load(self, device: torch.device, dtype: torch.dtype) -> DepthNetwork:
        """Load the weights.

        Raises:
            ValueError: They do not fit; names the tensors.
        """
        ...


class DepthNetwork(Protocol):
    """A loaded network.

    Attributes:
        device: Where it runs.
        dtype: What it computes in.
    """

    device: torch.device
    dtype: torch.dtype

    def prepare(self, frame: Tensor, size: ModelSize) -> Tensor:
        """A frame, uint8 or float `[3, H, W]`, as the network takes it up; may run ahead in another thread."""
        ...

    def frames_wanted(self, carry: Carry, settings: Any) -> int:
        """How many new frames the next window takes; at the end of a shot it gets fewer."""
        ...

    def run_window(
        self, new: Sequence[Tensor], size: ModelSize, carry: Carry, settings: Any, noise: Noise, ended: bool
    ) -> WindowResult:
        """Compute one window, in inference mode.

        Args:
            new: What `prepare` made of the new frames; one at the least.
            size: Of the frames, and that the network works at.
            carry: From the window before.
            settings: From `Checkpoint.choose_settings`.
            noise: Standard normals, for networks that start from noise.
            ended: The shot ends with these frames, so the depth of all of them is due.
        """
        ...

    def restore(self, depth: Tensor, size: ModelSize) -> Tensor:
        """Depth `[n, h, w]` at the frames' size, `[n, H, W]`."""
        ...
