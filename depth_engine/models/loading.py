"""Where a checkpoint's files are, whether they are whole, and strict loading.

Only safetensors are read. Finding files and checking them (`resolve_checkpoint`) needs no torch, so that a wrong name
or a missing file is told at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from depth_engine.checks import known_name
from depth_engine.models.catalogue import BUNDLED_FOLDER, KNOWN
from depth_engine.models.svd.spec import SPECS, CheckpointSpec
from depth_engine.plain_data import read_json

if TYPE_CHECKING:
    import torch
    from diffusers.models.modeling_utils import ModelMixin

    Model = TypeVar("Model", bound=ModelMixin)


WEIGHTS_STEM = "diffusion_pytorch_model"
# What a download takes: hub repositories carry the same weights several times over.
UNET_FILES = ("*.json", f"{WEIGHTS_STEM}*", "unet/*")
BASE_FILES = ("vae/*", "image_encoder/*", "feature_extractor/*", "scheduler/*")
ALL_FILES = (*UNET_FILES, *BASE_FILES)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class CheckpointFiles:
    """A checkpoint whose files were found.

    Attributes:
        name: As the caller named it.
        spec: What it expects.
        unet: Folder of the UNet's config and weights.
        base: Folder that holds `vae/`, `image_encoder/` and the like; the checkpoint's own if it is complete.
        spec_name: Spec as the caller named it, if so.
        base_name: Base as the caller named it, if so.
    """

    name: str
    spec: CheckpointSpec
    unet: Path
    base: Path
    spec_name: str | None = None
    base_name: str | None = None

    @property
    def codec_config(self) -> Path | None:
        """Config of a patch codec, or None where the codec is the base's VAE."""
        path = self.base / "codec" / "config.json"
        return path if path.is_file() else None

    def weights_sha256(self) -> str:
        """SHA-256 over the UNet's weight files, in hexadecimal."""
        return files_sha256(weight_files(self.unet, WEIGHTS_STEM))

    def base_sha256(self) -> str:
        """SHA-256 of what is used of the base, in hexadecimal: its VAE without a codec of its own, its CLIP tower."""
        used = [] if self.codec_config else [model_sha256(self.base / "vae", WEIGHTS_STEM)]
        if self.spec.embedding != "none":
            used.append(model_sha256(self.base / "image_encoder", "model"))
        return hashlib.sha256("".join(used).encode()).hexdigest()


def resolve_checkpoint(
    name: str | Path, *, spec: str | CheckpointSpec | None = None, base: str | Path | None = None
) -> CheckpointFiles:
    """Find a checkpoint's files and check that they are all there.

    Args:
        name: `bundled`, `chronodepth`, `depthcrafter`, a local folder, or a hub id `owner/name` or
            `owner/name@revision`.
        spec: Known spec by name, or a spec; default: the folder's `depth_engine.json`, or the known checkpoint's.
        base: Folder or hub id of the SVD that a UNet alone belongs to.

    Raises:
        ValueError: Unknown name or spec; a file missing; weights that are a pickle.
        FileNotFoundError: No such folder; a hub id that can't be fetched.
    """
    names = {"spec_name": spec if isinstance(spec, str) else None, "base_name": None if base is None else str(base)}
    if isinstance(spec, str):
        spec = SPECS[known_name("spec", spec, tuple(SPECS))]
    text = str(name)
    if text == "bundled":
        folder = BUNDLED_FOLDER
    elif text in KNOWN:
        known = KNOWN[text]
        spec = spec or SPECS[text]
        base = base or known.base
        folder = fetch(known.source, UNET_FILES)
    else:
        folder = _folder_or_hub("model", name, KNOWN)
    base_folder = None if base is None else _folder_or_hub("base", base, (), BASE_FILES)
    return replace(_check_files(text, folder, spec, base_folder), **names)


def _folder_or_hub(
    argument: str, name: str | Path, known: Sequence[str] | dict[str, Any], files: Sequence[str] = ALL_FILES
) -> Path:
    path = Path(name)
    if path.is_dir():
        return path
    text = str(name)
    if path.exists():
        raise ValueError(f"{argument}: {text} is a file; give a checkpoint folder")
    looks_like_hub_id = text.count("/") == 1 and not text.startswith((".", "/", "~")) and not path.parent.is_dir()
    if looks_like_hub_id:
        return fetch(text, files)
    if known and "/" not in text:
        known_name(argument, text, [*known, "a folder", "owner/name on the hub"])
    raise FileNotFoundError(f"{argument}: no such folder: {text}")


def fetch(hub_id: str, files: Sequence[str]) -> Path:
    """Folder of a hub repository, downloaded at the first use.

    Args:
        hub_id: `owner/name`, or `owner/name@revision`.
        files: Patterns of the files that are needed.

    Raises:
        FileNotFoundError: If it is neither cached nor reachable; says which command fetches it elsewhere.
    """
    from huggingface_hub import snapshot_download

    repo, _, revision = hub_id.partition("@")
    wanted: dict[str, Any] = {
        "revision": revision or None,
        "allow_patterns": list(files),
        "ignore_patterns": ["*.fp16.*", "*.bin", "*.msgpack"],
    }
    try:
        return Path(snapshot_download(repo, local_files_only=True, **wanted))
    except Exception:  # not cached: whatever the hub's client calls it, the next line says more
        pass
    try:
        return Path(snapshot_download(repo, **wanted))
    except Exception as error:
        at = f" --revision {revision}" if revision else ""
        raise FileNotFoundError(
            f"model: {hub_id} is not in the local cache and can't be fetched ({type(error).__name__}); where there is "
            f"a network, run: hf download {repo}{at} --local-dir FOLDER, and give that folder"
        ) from error


def _check_files(name: str, folder: Path, spec: CheckpointSpec | None, base: Path | None) -> CheckpointFiles:
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    base = base or folder
    if not (unet / "config.json").is_file():
        raise ValueError(f"model: {folder} holds no UNet: unet/config.json is missing")
    weight_files(unet, WEIGHTS_STEM)

    own_spec = folder / "depth_engine.json"
    if spec is None:
        if not own_spec.is_file():
            raise ValueError(
                f"spec: {folder} carries no depth_engine.json, so say what it expects; accepted: {', '.join(SPECS)}"
            )
        spec = CheckpointSpec.from_json(read_json(own_spec), str(own_spec))

    needed = ["scheduler/scheduler_config.json"]
    patch_codec = (base / "codec" / "config.json").is_file()
    if not patch_codec:
        needed.append("vae/config.json")
    if spec.embedding != "none":
        needed.append("image_encoder/config.json")
    if spec.flow and not patch_codec:
        raise ValueError(f"model: {folder} wants flow, which needs a lossless codec, a patch codec")
    missing = [file for file in needed if not (base / file).is_file()]
    if missing:
        hint = "; a UNet alone needs base=, the SVD folder it belongs to" if base == folder else ""
        raise ValueError(f"model: {', '.join(missing)} missing in {base}{hint}")
    if not patch_codec:
        weight_files(base / "vae", WEIGHTS_STEM)
    if spec.embedding != "none":
        weight_files(base / "image_encoder", "model")
    return CheckpointFiles(name=name, spec=spec, unet=unet, base=base)


def weight_files(folder: Path, stem: str) -> list[Path]:
    """The safetensors files of a model: one, or the shards that its index names; float32 before fp16.

    Raises:
        ValueError: If there are none, or only a pickle.
    """
    for variant in ("", ".fp16"):
        single = folder / f"{stem}{variant}.safetensors"
        index = folder / f"{stem}.safetensors.index{variant}.json"
        if single.is_file():
            return [single]
        if index.is_file():
            names = read_json(index).get("weight_map")
            if not isinstance(names, dict) or not names:
                raise ValueError(f"model: {index} has no weight_map, which names the file of each tensor")
            shards = sorted({folder / str(name) for name in names.values()})
            missing = [shard.name for shard in shards if not shard.is_file()]
            if missing:
                raise ValueError(f"model: {', '.join(missing)} missing in {folder}")
            return shards
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ValueError(
            f"model: {folder / pickles[0]} is a pickle, which can run code when read; accepted: {stem}.safetensors"
        )
    raise ValueError(f"model: {stem}.safetensors is missing in {folder}")


def model_sha256(folder: Path, stem: str) -> str:
    """SHA-256 over a model's weight files and its config, in hexadecimal."""
    return files_sha256([*weight_files(folder, stem), folder / "config.json"])


def files_sha256(paths: Sequence[Path]) -> str:
    """SHA-256 over the bytes of files, in the given order; a process reads what has not changed only once."""
    stats = [path.stat() for path in paths]
    return _files_sha256(tuple(paths), tuple((stat.st_size, stat.st_mtime_ns) for stat in stats))


@lru_cache
def _files_sha256(paths: tuple[Path, ...], as_of: tuple[tuple[int, int], ...]) -> str:
    """`as_of`, sizes and times of the files, is a part of the key alone."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def load_model(model_class: type[Model], folder: Path, dtype: torch.dtype, device: torch.device) -> Model:
    """Load a diffusers model; every tensor must be there, no other, each of the right shape.

    Raises:
        ValueError: Names the first tensors that are missing, surplus or misshapen, or the file that can't be read.
    """
    import torch
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    config = model_class.load_config(folder)  # type: ignore[attr-defined]
    with torch.device("meta"):
        model = model_class.from_config(config)  # type: ignore[arg-type]
    expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
    paths, held = weight_files(folder, WEIGHTS_STEM), {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                held |= {key: file.get_slice(key).get_shape() for key in file.keys()}
        except SafetensorError as error:
            raise ValueError(f"model: {path} is not a whole safetensors file ({error})") from error
    faults = [f"{key} is missing" for key in expected if key not in held]
    faults += [f"{key} is surplus" for key in held if key not in expected]
    faults += [
        f"{key} has shape {held[key]}, expected {list(shape)}"
        for key, shape in expected.items()
        if key in held and held[key] != list(shape)
    ]
    check_no_faults(folder, faults)  # before the tensors are read
    state = {key: tensor.to(dtype) for path in paths for key, tensor in load_file(path).items()}
    model.load_state_dict(state, strict=True, assign=True)
    torch.nn.Module.to(model, device)  # past diffusers' own `to`, which only adds checks for quantised models
    return model.eval().requires_grad_(False)


def check_no_faults(folder: Path, faults: Sequence[str]) -> None:
    """Turn a list of faults into one line.

    Raises:
        ValueError: If there is a fault.
    """
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise ValueError(f"model: weights in {folder} do not fit their config: {'; '.join(faults[:3])}{more}")
