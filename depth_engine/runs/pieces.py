"""Finished frames of a run, kept on disk so that a run that was killed goes on after them.

piece-000000.safetensors   the frames where they are no pictures; the piece counts once this file is there
piece-000000.mkv           its frames where they are pictures, FFV1; `piece-000000.NAME.mkv` of a companion clip
piece-000000.state         what the next piece needs; only the last piece keeps it
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from depth_engine.video.probe import VideoError
from depth_engine.video.read import read_frames
from depth_engine.video.write import VideoWriter

if TYPE_CHECKING:
    from torch import Tensor

PIECE_FILES = "piece-*"
# A piece on disk ends with whichever comes first. A killed run loses at the most one, and a longer window's work.
_KEEP_EVERY_S = 10.0
_KEEP_EVERY_FRAMES = 24
_KEEP_EVERY_BYTES = 128 * 2**20
_FPS = 24  # pieces are read by their order alone; FFV1 wants a rate
_FRAMES = "frames"
_STATE = "state"


class Piece(NamedTuple):
    """Finished frames.

    Attributes:
        frames: Pictures uint8 `[n, H, W, 3]`, or depth float32 `[n, h, w]`; n may be 0.
        state: What the maker needs to go on after this piece, in another process if need be.
        companions: Name -> uint8 `[n, h, w, 3]`: clips that belong to it, such as a mask or the control.
    """

    frames: np.ndarray
    state: dict[str, Tensor] = {}
    companions: dict[str, np.ndarray] = {}

    def one_by_one(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Each frame with its companions."""
        for index, frame in enumerate(self.frames):
            yield frame, {name: frames[index] for name, frames in self.companions.items()}


class PieceStore:
    """The pieces of a run on disk.

    Args:
        folder: Work folder; exists.

    Attributes:
        count: Number of pieces.
        frames: Number of frames in them.
        state: What the last piece said.

    Raises:
        ValueError: The last piece can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.count = len(list(folder.glob("piece-*.safetensors")))
        self.frames = 0
        self.state: dict[str, Tensor] = {}
        if self.count:
            self.frames, _, _ = self._read(self.count - 1)
            path = self._path(self.count - 1, _STATE)
            self.state = _tensors_of(path)[1] if path.exists() else {}

    def append(self, piece: Piece) -> None:
        """Keep a piece."""
        import torch

        tensors = {}
        for name, frames in {"": piece.frames, **piece.companions}.items():
            if frames.dtype == np.uint8:
                self._write_pictures(self._path(self.count, f"{name}.mkv"), frames)
            else:
                tensors[_FRAMES] = torch.from_numpy(np.ascontiguousarray(frames))
        numbers = {"frames": self.frames + len(piece.frames), "companions": list(piece.companions)}
        state = {name: tensor.contiguous().cpu() for name, tensor in piece.state.items()}
        self._path(self.count, _STATE).unlink(missing_ok=True)  # of a run that was killed here
        if state:
            _write_tensors(self._path(self.count, _STATE), state, {})
        _write_tensors(self._path(self.count, "safetensors"), tensors, {"piece": json.dumps(numbers)})
        if self.count:
            self._path(self.count - 1, _STATE).unlink(missing_ok=True)
        self.count, self.frames = self.count + 1, numbers["frames"]

    def kept(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Every frame with its companions, in order.

        Raises:
            ValueError: A piece can't be read.
        """
        for number in range(self.count):
            _, companions, tensors = self._read(number)
            if _FRAMES in tensors:
                yield from Piece(tensors[_FRAMES].numpy()).one_by_one()
                continue
            paths = [self._path(number, f"{name}.mkv") for name in ["", *companions]]
            try:
                for frames in zip(*(read_frames(path) for path in paths), strict=True):
                    frame, *others = (each.rgb for each in frames)
                    yield frame, dict(zip(companions, others, strict=True))
            except (VideoError, ValueError) as error:
                raise _lost(paths[0], error) from error

    def _read(self, number: int) -> tuple[int, list[str], dict[str, Tensor]]:
        """Number of frames up to the end of a piece, names of its companions, and its tensors."""
        facts, tensors = _tensors_of(self._path(number, "safetensors"))
        numbers = json.loads(facts["piece"])
        return numbers["frames"], numbers["companions"], tensors

    def _write_pictures(self, path: Path, frames: np.ndarray) -> None:
        height, width = frames.shape[1:3]
        with VideoWriter(path, width=width, height=height, fps=_FPS, codec="ffv1", overwrite=True) as writer:
            for index, frame in enumerate(frames):
                writer.write(frame, index / _FPS)

    def _path(self, number: int, ending: str) -> Path:
        return self._folder / f"piece-{number:06d}.{ending.removeprefix('.')}"


def _write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
    """Write a file that appears whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    partial = path.with_suffix(".partial")
    try:
        save_file(tensors, partial, metadata=facts)
    except SafetensorError as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"{partial} can't be written ({error})") from error
    os.replace(partial, path)


def _tensors_of(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What `_write_tensors` wrote: facts and tensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise _lost(path, error) from error


def _lost(path: Path, error: Exception) -> ValueError:
    return ValueError(f"resume: {path} can't be read ({' '.join(str(error).split())}); --overwrite starts anew")


def gathered(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Small pieces made one: each costs a few files on disk, which a quick network would wait for.

    If `pieces` ends by an error, what was gathered comes first.
    """
    waiting: list[Piece] = []
    began_s = time.monotonic()

    def joined() -> Piece:
        frames = np.concatenate([piece.frames for piece in waiting])
        names = waiting[0].companions
        companions = {name: np.concatenate([piece.companions[name] for piece in waiting]) for name in names}
        return Piece(frames, held_state, companions)

    held_state: dict[str, Tensor] = {}
    try:
        for piece in pieces:
            held_state = piece.state
            if len(piece.frames):
                waiting.append(piece)
            count = sum(len(each.frames) for each in waiting)
            size = sum(frames.nbytes for each in waiting for frames in (each.frames, *each.companions.values()))
            took_s = time.monotonic() - began_s
            if waiting and (count >= _KEEP_EVERY_FRAMES or size >= _KEEP_EVERY_BYTES or took_s >= _KEEP_EVERY_S):
                yield joined()
                waiting, began_s = [], time.monotonic()
    except Exception:  # such as memory that ran out: what is finished is kept
        if waiting:
            yield joined()
        raise
    if waiting:
        yield joined()
