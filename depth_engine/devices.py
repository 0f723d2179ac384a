"""Device and dtype by name, and the share of the cores that a thread takes."""

from __future__ import annotations

import torch

from depth_engine.checks import known_name

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(device: str) -> torch.device:
    """The device by name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ValueError: If it is unknown or absent; says what there is.
    """
    present = ["cpu"]
    if torch.cuda.is_available():
        present += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        present.append("mps")
    if device == "auto":
        return torch.device("cuda" if "cuda" in present else "mps" if "mps" in present else "cpu")
    known_name("device", device, ["auto", *present])
    return torch.device(device)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The dtype by name; `auto` is float16 on CUDA and float32 elsewhere.

    Raises:
        ValueError: If it is unknown.
    """
    if dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return DTYPES[known_name("dtype", dtype, ["auto", *DTYPES])]


def computes_as(device: str, dtype: str) -> dict[str, str]:
    """Device and dtype, by name, that a request comes to.

    Raises:
        ValueError: A name is unknown, or the device is absent.
    """
    chosen = choose_device(device)
    return {"device": chosen.type, "dtype": str(choose_dtype(dtype, chosen)).removeprefix("torch.")}


def yield_cores() -> None:
    """Let torch compute with a quarter of its threads, one at the least, in the thread that calls this, until it ends.

    For a thread that works beside the network: where both compute with as many threads as there are cores, each waits
    for the other's at every operation.
    """
    # Not `torch.set_num_threads`, which sets what other threads start with, and MKL's number in all of them: the
    # network's sums, and so the last bits of depth, would hang on which thread came first.
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()  # asked first: a thread's first question sets its number to torch's own
    threadpool_limits(max(1, threads // 4), user_api="openmp")
