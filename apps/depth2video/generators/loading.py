"""How a generator's parts are found and loaded; nothing here needs torch until `load_generator`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from depth2video.generators.catalogue import GENERATORS, SMALL_FOLDER, Part
from depth2video.generators.fit import check_parts_fit
from depth2video.generators.interface import Generator, Offload
from depth2video.generators.single_file import TOKENIZER, check_single_file, find_tokenizer, read_configs
from depth_engine.checks import known_name
from depth_engine.models.hub import fetch, is_hub_id


def find_parts(name: str, named: Mapping[str, str | None], *, optional: tuple[str, ...] = ()) -> dict[str, Path]:
    """Where a generator's parts lie, fetched where need be: folders, or single files; `TOKENIZER` where one needs it.

    Args:
        name: Generator.
        named: Part -> folder or hub id, where the user named one.
        optional: Optional parts that are needed.

    Raises:
        FileNotFoundError: No such folder, or a hub id that can't be fetched; says which command fetches it elsewhere.
        ValueError: A folder lacks a file that is needed, has the weights as a pickle alone, or does not fit the others.
    """
    folders = {}
    for part_name, part in GENERATORS[name].parts.items():
        given = named.get(part_name)
        if given is None and part.optional and part_name not in optional:
            continue
        place = small_folder(given) if name == "bundled" else _find_part(part, given or part.hub_id)
        folders[part_name] = place
        try:
            if place.is_dir():
                part.files.check(place)
            elif "unet" in read_configs(place):
                folders[TOKENIZER] = find_tokenizer(place)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"{part.option}: {str(error).removeprefix('model: ')}") from error
    check_parts_fit(name, folders, named)
    return folders


def small_folder(given: str | None) -> Path:
    """Folder of a small generator: the bundled one, or one that `depth-train generator` wrote.

    Raises:
        FileNotFoundError: It is not there.
    """
    folder = SMALL_FOLDER if given is None else Path(given)
    if not (folder / "generator.json").is_file():
        where = "is not in this installation; install it anew" if given is None else f"is not in {given}"
        raise FileNotFoundError(f"--base: a small generator (generator.json, unet, controlnet) {where}")
    return folder


def _find_part(part: Part, given: str) -> Path:
    path = Path(given)
    if path.is_file() and (path.parent / "config.json").is_file():
        path = path.parent  # one file of a folder as diffusers saves it
    if path.is_dir():
        return path
    if path.is_file():
        try:
            check_single_file(path, part.single_file, f"a folder: hf download {part.hub_id} --local-dir FOLDER")
        except ValueError as error:
            raise ValueError(f"{part.option}: {error}") from error
        return path
    if not is_hub_id(given):
        raise FileNotFoundError(f"{part.option}: no such folder: {given}")
    return fetch(given, part.files, check=part.files.check, argument=part.option)


def weights_identity(folders: Mapping[str, Path]) -> dict[str, str]:
    """Part -> a hash of its weight files' names, sizes and times: what must be the same for a run to go on."""
    hashes = {}
    for name, folder in folders.items():
        files = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else [folder]
        facts = [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        hashes[name] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return hashes


def load_generator(
    name: str,
    folders: Mapping[str, Path],
    *,
    window: int,
    stride: int,
    device: str = "auto",
    dtype: str = "auto",
    offload: Offload = "none",
    video_to_video: bool = False,
) -> Generator:
    """Load a generator.

    Args:
        name: One of `GENERATORS`.
        folders: From `find_parts`.
        window: From `choose_windows`.
        stride: From `choose_windows`.
        device: As `depth-engine estimate` takes it.
        dtype: Likewise; `auto` is bfloat16 for wan-vace on a GPU, which float16 overflows.
        offload: `none` keeps all on the device; `model` moves each model there when it is used; `sequential` each
            layer, slow and with the least memory.
        video_to_video: Whether requests will have a strength.

    Raises:
        ValueError: Weights are missing or do not fit their config.
    """
    from depth_engine.devices import choose_device, choose_dtype

    known_name("generator", name, GENERATORS)
    chosen = choose_device(device)
    if name == "bundled":
        from depth2video.generators.small import load_small

        return load_small(folders["base"], device=chosen)
    if name == "wan-vace" and dtype == "auto" and chosen.type == "cuda":
        dtype = "bfloat16"
    number = choose_dtype(dtype, chosen)
    from depth_engine.models.loading import quiet_libraries

    with quiet_libraries():
        if name == "animatediff":
            from depth2video.generators.animatediff import load_animatediff

            return load_animatediff(
                folders,
                window=window,
                stride=stride,
                device=chosen,
                dtype=number,
                offload=offload,
                video_to_video=video_to_video,
            )
        if name == "svd":
            from depth2video.generators.svd import load_svd

            return load_svd(dict(folders), window=window, stride=stride, device=chosen, dtype=number, offload=offload)
        from depth2video.generators.wan_vace import load_wan_vace

        return load_wan_vace(
            folders["base"], window=window, stride=stride, device=chosen, dtype=number, offload=offload
        )
