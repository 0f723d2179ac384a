"""Frames that a caller of the library holds in memory, in whatever form, brought to one form and checked."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depth_engine.video.frame import Frame
from depth_engine.video.shots import mark_shots

ACCEPTED = "accepted: uint8 [H, W, 3], float [3, H, W] in [0, 1], or a PIL image"
# Values that an interpolation pushed out of [0, 1] by rounding are let pass.
_ROUNDING = 1e-3
_DEEP_PIL_MODES = ("F", "I")  # and I;16 and the like: Pillow would clip them at 255


def frames_of(source: Any) -> Iterable[Any]:
    """Frames one by one of a clip in memory. What is there already is checked at once, before a network starts.

    Args:
        source: An array or tensor of frames, a list or tuple of them, or any other iterable, which is read only once.

    Raises:
        ValueError: It is none of these, or a frame is not as `frame_tensor` takes it.
    """
    if isinstance(source, Tensor) or hasattr(source, "__array__"):
        source = source if isinstance(source, Tensor) else np.asarray(source)
        if source.ndim != 4 or 0 in source.shape:
            raise ValueError(
                f"frames: {type(source).__name__} of shape {tuple(source.shape)} is not accepted; "
                "give uint8 [T, H, W, 3] or float [T, 3, H, W] in [0, 1]"
            )
        one_byte = source.dtype in (torch.uint8, np.uint8)
        _check_all(source[:1] if one_byte else source)  # all bytes are fine, and all frames of an array of one shape
    elif isinstance(source, Sequence) and not isinstance(source, (str, bytes)):
        _check_all(source)
    elif not isinstance(source, Iterable) or isinstance(source, (str, bytes, dict)):
        raise ValueError(f"frames: {type(source).__name__} is not accepted; give an array, a list or an iterator")
    return source


def frame_tensor(frame: Any, index: int) -> Tensor:
    """A frame as `[3, H, W]`, uint8 or float32, on the CPU.

    A float frame that holds nothing but 8-bit values, k / 255, becomes that 8-bit frame, so that both give the same
    depth. Of a PIL image, transparency is dropped.

    Args:
        frame: uint8 `[H, W, 3]` or float `[3, H, W]` in [0, 1], of numpy, torch or whatever has `__array__`, with any
            strides; or a PIL image of 8 bits a channel.
        index: Of the frame, for errors.

    Raises:
        ValueError: It is something else, or a value is not finite or lies outside [0, 1]; names the frame.
    """
    tensor = frame.detach().cpu() if isinstance(frame, Tensor) else _from_other(frame, index)
    if tensor.dtype == torch.uint8 and tensor.ndim == 3 and tensor.shape[-1] == 3 and tensor.numel():
        return tensor.movedim(-1, 0).contiguous()
    if tensor.is_floating_point() and tensor.ndim == 3 and tensor.shape[0] == 3 and tensor.numel():
        return _from_float(tensor, index)
    raise ValueError(f"frames: frame {index} is {tensor.dtype} {list(tensor.shape)}; {ACCEPTED}")


def mark_frames(frames: Iterable[Any], shots: bool | Collection[int]) -> Iterator[tuple[Tensor, bool]]:
    """Frames as `[3, H, W]` tensors with True where a shot starts.

    Args:
        frames: As `frame_tensor` takes them.
        shots: Find cuts (True), none (False), or first frames.
    """
    waiting: deque[Tensor] = deque()
    first_shape: list[int] = []

    def pictures() -> Iterator[Frame]:
        for index, frame in enumerate(frames):
            tensor = frame_tensor(frame, index)
            first_shape[:] = first_shape or tensor.shape
            if list(tensor.shape) != first_shape:
                (_, height, width), (_, was_height, was_width) = tensor.shape, first_shape
                raise ValueError(
                    f"frames: frame {index} is {width}x{height}, the ones before are {was_width}x{was_height}"
                )
            waiting.append(tensor)
            picture = tensor if tensor.dtype == torch.uint8 else (tensor.clamp(0, 1) * 255).round().byte()
            yield Frame(index, float(index), picture.movedim(0, -1).contiguous().numpy())

    for frame in mark_shots(pictures(), shots):
        yield waiting.popleft(), frame.starts_shot


def _check_all(frames: Iterable[Any]) -> None:
    for index, frame in enumerate(frames):
        frame_tensor(frame, index)


def _from_other(frame: Any, index: int) -> Tensor:
    mode = getattr(frame, "mode", None)
    if isinstance(mode, str) and hasattr(frame, "convert"):  # a PIL image
        if mode.startswith(_DEEP_PIL_MODES):
            raise ValueError(f"frames: frame {index} is a PIL image of mode {mode}; accepted: 8 bits a channel")
        frame = frame.convert("RGB")
    elif not isinstance(frame, np.ndarray) and not hasattr(frame, "__array__"):
        raise ValueError(f"frames: frame {index} is a {type(frame).__name__}; {ACCEPTED}")
    array = np.asarray(frame)
    if array.dtype.kind == "f":
        array = array.astype(np.float16 if array.dtype.itemsize == 2 else np.float32)
    elif array.dtype != np.uint8:
        raise ValueError(f"frames: frame {index} is {array.dtype} {list(array.shape)}; {ACCEPTED}")
    # torch knows neither negative strides nor memory that must not be written.
    return torch.from_numpy(array if array.flags.c_contiguous and array.flags.writeable else array.copy())


def _from_float(tensor: Tensor, index: int) -> Tensor:
    values = tensor.float()
    low, high = (float(bound) for bound in torch.aminmax(values))
    if not (np.isfinite(low) and np.isfinite(high)):  # a NaN makes both of them NaN
        raise ValueError(f"frames: frame {index} holds values that are not finite; accepted: [0, 1]")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(f"frames: frame {index} holds values from {low:g} to {high:g}; accepted: [0, 1]")
    counts = values * 255
    whole = counts.round()
    tolerance = 255 * max(torch.finfo(tensor.dtype).eps, torch.finfo(torch.float32).eps)
    return whole.clamp(0, 255).byte() if bool(((counts - whole).abs() <= tolerance).all()) else values
