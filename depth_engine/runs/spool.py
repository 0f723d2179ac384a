"""What a run leaves on disk after each window so that it can go on after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from depth_engine.engine import Carry
from depth_engine.models.svd.windows import Window

SPOOL_FILES = ("state.json", "carry.safetensors", "spool.f32")
_TENSORS = ("condition", "embedding", "latents", "pending")


class Spool:
    """Append-only depth at the model's size, and the carry of the last window.

    The carry file is replaced in one step and says how many frames count; depth beyond that is of a window whose carry
    was never written, and is overwritten.

    Args:
        folder: Work folder; exists.
        identity: What must be the same for a run to go on, plain JSON data.

    Raises:
        ValueError: The folder holds another run's spool, or lost data.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self._state, self._carry, self._depth = (folder / name for name in SPOOL_FILES)
        self.carry = Carry()
        held = read_identity(folder)
        if held is None:
            partial = self._state.with_suffix(".partial")
            partial.write_text(json.dumps(identity, indent=2) + "\n")
            os.replace(partial, self._state)
        elif held != identity:
            raise ValueError(f"resume: the interrupted run in {folder.parent} was another one; --overwrite starts anew")
        elif self._carry.exists():
            self.carry = self._read_carry()
        self._depth.touch()
        self._file = self._depth.open("r+b")
        self._bytes = self._done_bytes
        if self._depth.stat().st_size < self._bytes:
            raise ValueError(f"resume: {self._depth} lost data; --overwrite starts anew")
        self._file.truncate(self._bytes)
        self._file.seek(self._bytes)

    def append(self, depth: np.ndarray, carry: Carry) -> None:
        """Keep a window's depth `[n, h, w]` float32 and what follows from it."""
        self._file.write(np.ascontiguousarray(depth, dtype="<f4").tobytes())
        self._file.flush()
        self._bytes += depth.nbytes
        self._write_carry(carry)
        self.carry = carry

    def frames(self, shape: tuple[int, int]) -> Iterator[np.ndarray]:
        """The depth kept when the spool was opened, float32 `[h, w]` one by one."""
        count, size = self.carry.frames_done, shape[0] * shape[1] * 4
        with self._depth.open("rb") as file:
            for _ in range(count):
                yield np.frombuffer(file.read(size), dtype="<f4").reshape(shape).astype(np.float32)

    def close(self) -> None:
        """Let go of the file; it stays on disk."""
        self._file.close()

    def _write_carry(self, carry: Carry) -> None:
        tensors = {
            name: getattr(carry, name).contiguous().cpu() for name in _TENSORS if getattr(carry, name) is not None
        }
        numbers = {
            "frames_read": carry.frames_read,
            "frames_done": carry.frames_done,
            "shot_start": carry.shot_start,
            "window": asdict(carry.window) if carry.window else None,
            "bytes": self._bytes,
        }
        partial = self._carry.with_suffix(".partial")
        try:
            save_file(tensors, partial, metadata={"carry": json.dumps(numbers)})
        except SafetensorError as error:
            partial.unlink(missing_ok=True)
            raise OSError(f"{partial} can't be written ({error})") from error
        os.replace(partial, self._carry)

    def _read_carry(self) -> Carry:
        with safe_open(self._carry, framework="pt") as file:
            numbers = json.loads(file.metadata()["carry"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        window = numbers.pop("window")
        self._done_bytes = numbers.pop("bytes")
        return Carry(**numbers, **tensors, window=Window(**window) if window else None)

    _done_bytes: int = 0


def read_identity(folder: Path) -> dict[str, Any] | None:
    """What the interrupted run in a work folder was, or None if there is none."""
    state = folder / SPOOL_FILES[0]
    return json.loads(state.read_text()) if state.exists() else None
