"""DepthVideo: depth of a clip whose kind is always explicit.

Kinds (z is metric depth; a, b are unknown, one pair per shot):

    disparity   v = a / z + b   near is large   affine-invariant
    depth       v = a * z + b   far is large    affine-invariant
    metric      v = z           metres

With a and b unknown, neither affine-invariant kind determines the other or metric depth. Each conversion that needs
scale and shift therefore asks for them, or for the metric depth of the nearest and farthest value, and nothing
converts silently.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, SupportsIndex, cast, overload

import numpy as np

from depth_engine.depth import metrics
from depth_engine.depth.conversion import affine, metres
from depth_engine.depth.formats import DEPTH_FORMATS, DepthFormat, depth_path, find_depth_file, split_depth_path
from depth_engine.depth.sidecar import (
    DEPTH_KINDS,
    DepthKind,
    Held,
    make_sidecar,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from depth_engine.depth.sinks import Stored, open_depth_sink
from depth_engine.depth.stored_values import allocate, load_values
from depth_engine.runs.atomic import refuse_existing
from depth_engine.video.rate import as_frame_rate


@dataclass(frozen=True, eq=False, repr=False)
class DepthVideo:
    """Depth of a clip.

    Attributes:
        values: float32 `[T, H, W]`, an array or a memory map. Raw relative depth lies in [0, 1] over the whole clip.
        kind: "disparity", "depth" or "metric" (metres).
        times_s: float64 `[T]`, seconds, increasing.
        fps: Nominal frame rate; any number is taken and kept as a fraction.
        meta: Content of the sidecar, as `make_sidecar` documents it; may be empty.
    """

    values: np.ndarray
    kind: DepthKind
    times_s: np.ndarray
    fps: Fraction
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check shape, type, kind and that every value is finite.

        Raises:
            ValueError: Something is not as documented.
        """
        if self.kind not in DEPTH_KINDS:
            raise ValueError(f"kind: {self.kind!r} is not one of {', '.join(DEPTH_KINDS)}")
        values = self.values
        if not isinstance(values, np.ndarray) or values.ndim != 3 or values.dtype != np.float32 or values.size == 0:
            found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
            raise ValueError(f"values: {found} is not a float32 array [T, H, W] with at least one pixel")
        times_s = np.asarray(self.times_s, np.float64)
        if times_s.shape != (len(values),):
            raise ValueError(f"times_s: shape {times_s.shape} does not give one time to each of {len(values)} frames")
        if not np.isfinite(times_s).all() or (np.diff(times_s) <= 0).any():
            raise ValueError("times_s: must be finite and increase from frame to frame")
        for index, frame in enumerate(values):
            if not np.isfinite(frame).all():
                raise ValueError(f"values: frame {index} holds NaN or infinity")
        object.__setattr__(self, "times_s", times_s)
        object.__setattr__(self, "fps", as_frame_rate(self.fps))

    def __repr__(self) -> str:
        """Shape and kind, no pixels."""
        frame_count, height, width = self.values.shape
        return f"DepthVideo(kind={self.kind!r}, frames={frame_count}, height={height}, width={width}, fps={self.fps})"

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.values)

    @overload
    def __getitem__(self, item: SupportsIndex) -> np.ndarray: ...

    @overload
    def __getitem__(self, item: slice) -> DepthVideo: ...

    def __getitem__(self, item: SupportsIndex | slice) -> np.ndarray | DepthVideo:
        """A frame, float32 `[H, W]`; or by a slice a part of the clip, with its times, which shares the values.

        Raises:
            ValueError: A slice holds no frame or runs backwards.
            IndexError: There is no such frame.
        """
        if not isinstance(item, slice):
            return self.values[operator.index(item)]
        start, stop, step = item.indices(len(self))
        count = len(range(start, stop, step))
        if step < 0 or not count:
            raise ValueError(f"slice: {item} of {len(self)} frames is not accepted; give one frame or more, forwards")
        # What the sidecar says of the whole clip is made anew for a part.
        meta = {key: value for key, value in self.meta.items() if key not in ("times_s", "frame_count", "fps")}
        if "shots" in meta:
            firsts = {max(0, -((start - first) // step)) for first in meta["shots"]}
            meta["shots"] = sorted(first for first in firsts if first < count)
        return replace(self, values=self.values[item], times_s=self.times_s[item], fps=self.fps / step, meta=meta)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Frames in order, float32 `[H, W]`."""
        return iter(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values `[T, H, W]`, for `numpy.asarray` and what calls it."""
        array = self.values if dtype is None else self.values.astype(dtype, copy=False)
        if copy is False and array is not self.values:
            raise ValueError(f"copy: False is not possible; the values are float32, not {array.dtype}")
        return array.copy() if copy and array is self.values else array

    # -- files --

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        kind: DepthKind | None = None,
        fps: Fraction | float | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> DepthVideo:
        """Read depth back.

        float32 npy is mapped, not read. Other formats are decoded into memory, above 1 GiB into an unnamed temporary
        file that is mapped.

        Args:
            path: A depth file or folder of frames, its sidecar, or a folder that holds exactly one sidecar. Where the
                sidecar serves several formats, the most exact one is read.
            kind: Needed without a sidecar; with one it may be left out, and must agree.
            fps: Without a sidecar only; None counts frames instead of seconds (1 fps).
            value_range: Needed for mkv and png16 without a sidecar.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The kind or value range is missing or contradicts the sidecar, or the file is damaged.
        """
        file = find_depth_file(Path(path))
        base, format = split_depth_path(file)
        if sidecar_path(base).exists():
            meta = read_sidecar(sidecar_path(base))
            if kind not in (None, meta["kind"]):
                raise ValueError(f"kind: {kind!r} contradicts {meta['kind']!r} in the sidecar of {file}")
            kind = cast(DepthKind, meta["kind"])
            if fps is not None:
                raise ValueError(f"fps: the sidecar of {file} says {meta['fps']}, leave the argument out")
        elif kind is None:
            accepted = ", ".join(DEPTH_KINDS)
            raise ValueError(f"{file}: without its sidecar {sidecar_path(base).name}, kind must be given: {accepted}")
        else:
            meta = {}
        values = load_values(file, format, meta, value_range)
        rate = as_frame_rate(meta.get("fps") or fps or 1)
        times_s = np.asarray(meta.get("times_s") or np.arange(len(values)) / float(rate), np.float64)
        return cls(values, kind, times_s, rate, meta)

    def save(
        self,
        path: str | Path,
        format: DepthFormat | None = None,
        *,
        overwrite: bool = False,
        dtype: str = "float32",
        value_range: tuple[float, float] | None = None,
    ) -> Path:
        """Write the depth file and its sidecar.

        Args:
            path: Base path without ending, or the full name (DIR/depth and DIR/depth.npy are the same for npy).
            format: One of `depth_files.DEPTH_FORMATS`; None takes it from the path's ending.
            overwrite: Replace existing files.
            dtype: "float32" or "float16", for npy and exr.
            value_range: (lo, hi) of the 16-bit counts and of the preview's colours. None takes the sidecar's, else
                [0, 1] where every relative value lies in it, else the clip's own range.

        Returns:
            The finished file or folder.

        Raises:
            ValueError: The format is unknown or missing.
            FileExistsError: A target exists and `overwrite` is off.
        """
        base, format = _base_and_format(Path(path), format)
        target = sidecar_path(base)
        refuse_existing(depth_path(base, format), overwrite)
        refuse_existing(target, overwrite)
        value_range = value_range or self._value_range()
        _, height, width = self.values.shape
        sink = open_depth_sink(
            base,
            format,
            height=height,
            width=width,
            fps=self.fps,
            overwrite=overwrite,
            stored=Stored(dtype, value_range, self.kind),
        )
        names = self.meta.get("frame_names") or []
        names = names if len(names) == len(self) else [None] * len(self)
        with sink:
            for frame, time_s, name in zip(self.values, self.times_s, names, strict=True):
                sink.write(frame, float(time_s), name)
        clipped = {format: sink.clipped}
        fresh = make_sidecar(
            Held(self.kind, self.fps, self.times_s, height, width, value_range=value_range, clipped=clipped)
        )
        # What only the sidecar knows (checkpoint, seed, settings, source, shots) is carried over.
        kept = {key: value for key, value in self.meta.items() if not fresh.get(key)} | {"frame_names": names}
        if None in names:
            del kept["frame_names"]
        write_sidecar(target, fresh | kept, overwrite=overwrite)
        return sink.path

    def _value_range(self) -> tuple[float, float]:
        if "value_range" in self.meta:
            lo, hi = self.meta["value_range"]
            return float(lo), float(hi)
        lo = min(float(frame.min()) for frame in self.values)
        hi = max(float(frame.max()) for frame in self.values)
        if self.kind != "metric" and lo >= 0 and hi <= 1:
            return 0.0, 1.0
        return (lo, hi) if lo < hi else (lo, lo + 1.0)

    # -- alignment --

    def fit(self, depth_m: np.ndarray, valid: np.ndarray | None = None) -> tuple[float, float]:
        """Scale and shift that bring this clip to known metric depth, by one least squares over the whole clip.

        Args:
            depth_m: `[T, H, W]`, metres, > 0 where valid.
            valid: Boolean `[T, H, W]`; None means every pixel.

        Returns:
            (scale, shift) for `to_metric`: fitted against 1 / depth_m for disparity, against depth_m for depth.

        Raises:
            ValueError: The clip is metric, the shapes differ, no pixel is valid, or a valid depth is not > 0.
        """
        if self.kind == "metric":
            raise ValueError("kind: a metric clip has no scale and shift to fit")
        if np.shape(depth_m) != self.values.shape:
            raise ValueError(f"depth_m: shape {np.shape(depth_m)} is not {self.values.shape}")
        fit = metrics.ScaleShiftFit()
        for index, frame in enumerate(self.values):
            mask = np.ones(frame.shape, bool) if valid is None else np.asarray(valid[index], bool)
            target_m = np.asarray(depth_m[index], np.float64)[mask]
            if not (np.isfinite(target_m) & (target_m > 0)).all():
                raise ValueError(f"depth_m: frame {index} is not finite and > 0 at every valid pixel")
            fit.add(frame[mask], 1.0 / target_m if self.kind == "disparity" else target_m)
        return fit.solve()

    # -- conversion --

    def to_metric(
        self,
        *,
        scale: float | None = None,
        shift: float | None = None,
        near_m: float | None = None,
        far_m: float | None = None,
        clip_m: tuple[float, float] | None = None,
    ) -> DepthVideo:
        """Metres, by an affine map that the caller gives.

        disparity: z = 1 / (scale * v + shift);  depth: z = scale * v + shift.

        Args:
            scale: With `shift`, as from `fit`.
            shift: With `scale`.
            near_m: With `far_m`, in place of scale and shift: the distance that the nearest possible raw value stands
                for (1 of disparity, 0 of depth), metres, > 0.
            far_m: The distance of the farthest possible raw value (0 of disparity, 1 of depth), above `near_m`.
            clip_m: (min, max) in metres to clip to. Without it a value that would come out at or behind the camera
                is an error.

        Raises:
            ValueError: The clip is metric already, the numbers are missing or not accepted, or a value comes out
                not positive and `clip_m` is not given.
        """
        if self.kind == "metric":
            raise ValueError("kind: the clip is metric already")
        scale, shift = affine(self.kind, "metric", scale, shift, near_m, far_m)
        if clip_m is not None and not 0 < clip_m[0] < clip_m[1]:
            raise ValueError(f"clip_m: {clip_m} must be (min, max) in metres with 0 < min < max")
        inverse = self.kind == "disparity"
        return self._mapped("metric", lambda frame: metres(frame, scale, shift, inverse, clip_m), scale, shift)

    def to_disparity(
        self,
        *,
        scale: float | None = None,
        shift: float | None = None,
        near_m: float | None = None,
        far_m: float | None = None,
    ) -> DepthVideo:
        """Disparity in 1/m: 1 / z of a metric clip, or of a depth clip with a given scale and shift.

        Args:
            scale: Of `to_metric`, for a depth clip only.
            shift: Of `to_metric`, for a depth clip only.
            near_m: Of `to_metric`, for a depth clip only.
            far_m: Of `to_metric`, for a depth clip only.

        Raises:
            ValueError: The clip is disparity already, the numbers are missing, not accepted or not wanted, or a
                depth is not positive.
        """
        return self._inverse("disparity", scale, shift, near_m, far_m)

    def to_depth(
        self,
        *,
        scale: float | None = None,
        shift: float | None = None,
        near_m: float | None = None,
        far_m: float | None = None,
    ) -> DepthVideo:
        """Depth in metres as an affine-invariant clip: z of a metric clip, or of disparity with scale and shift.

        Args:
            scale: Of `to_metric`, for a disparity clip only.
            shift: Of `to_metric`, for a disparity clip only.
            near_m: Of `to_metric`, for a disparity clip only.
            far_m: Of `to_metric`, for a disparity clip only.

        Raises:
            ValueError: The clip is depth already, the numbers are missing, not accepted or not wanted, or a value
                comes out not positive.
        """
        return self._inverse("depth", scale, shift, near_m, far_m)

    def _inverse(
        self,
        target: DepthKind,
        scale: float | None,
        shift: float | None,
        near_m: float | None,
        far_m: float | None,
    ) -> DepthVideo:
        if self.kind == target:
            raise ValueError(f"kind: the clip is {target} already")
        if self.kind == "metric":
            if any(number is not None for number in (scale, shift, near_m, far_m)):
                raise ValueError("scale, shift, near_m, far_m: a metric clip needs none of them")
            scale, shift = 1.0, 0.0
        else:
            scale, shift = affine(self.kind, target, scale, shift, near_m, far_m)
        # Always by way of metres, which also refuses depth at or behind the camera.
        from_disparity, to_disparity = self.kind == "disparity", target == "disparity"

        def convert(frame: np.ndarray) -> np.ndarray:
            depth_m = metres(frame, scale, shift, from_disparity, None)
            return 1.0 / depth_m if to_disparity else depth_m

        return self._mapped(target, convert, scale, shift)

    def _mapped(
        self, kind: DepthKind, convert: Callable[[np.ndarray], np.ndarray], scale: float, shift: float
    ) -> DepthVideo:
        """A clip of another kind, converted frame by frame; `meta` says how."""
        values = allocate(self.values.shape)
        for index, frame in enumerate(self.values):
            try:
                values[index] = convert(frame)
            except ValueError as error:
                raise ValueError(f"frame {index}: {error}") from error
        # The old range belongs to the old values.
        meta = {key: value for key, value in self.meta.items() if key not in ("value_range", "scale", "meaning")}
        meta |= {"kind": kind, "conversion": {"from": self.kind, "scale": scale, "shift": shift}}
        return DepthVideo(values, kind, self.times_s, self.fps, meta)


def _base_and_format(path: Path, format: DepthFormat | None) -> tuple[Path, DepthFormat]:
    """Base path and format from a path with or without ending."""
    try:
        base, ending_format = split_depth_path(path)
    except ValueError:
        if format is None:
            accepted = ", ".join(DEPTH_FORMATS)
            raise ValueError(f"format: needed for {path}, which has no depth ending: {accepted}") from None
        return path, format
    if format not in (None, ending_format):
        raise ValueError(f"format: {format!r} contradicts the ending of {path}")
    return base, ending_format
