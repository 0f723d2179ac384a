"""The header of a safetensors file: what tensors it holds, of what shapes. Needs no torch and reads no tensor.

Layout: 8 bytes (length of the header, little-endian), the header as JSON, then the tensors' bytes
(https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
from pathlib import Path

_MOST_BYTES = 100_000_000  # of a header, as the format has it
_LFS_POINTER = b"version https://git-lfs"  # how the text begins that git keeps in place of a large file


def read_shapes(path: Path) -> dict[str, list[int]]:
    """Name -> shape of every tensor in a file.

    Args:
        path: A safetensors file.

    Raises:
        ValueError: It is none, or is cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(len(_LFS_POINTER))
        if begin == _LFS_POINTER:
            raise ValueError(f"model: {path} is a pointer of git LFS, not the weights; run: git lfs pull")
        length = int.from_bytes(begin[:8], "little")
        if len(begin) < 8 or length > min(_MOST_BYTES, size - 8):
            raise ValueError(f"model: {path} is not a whole safetensors file ({size} bytes)")
        file.seek(8)
        try:
            entries = json.loads(file.read(length))
            tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
            shapes = {name: [int(side) for side in entry["shape"]] for name, entry in tensors.items()}
            ends = [int(entry["data_offsets"][1]) for entry in tensors.values()]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, UnicodeDecodeError) as error:
            raise ValueError(f"model: {path} is not a safetensors file (its header can't be read)") from error
    wanted = 8 + length + max(ends, default=0)
    if size < wanted:
        raise ValueError(f"model: {path} is cut off: it has {size} of {wanted} bytes; fetch it anew")
    return shapes
