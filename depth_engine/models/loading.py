"""Where a checkpoint's files are, whether they are whole, and strict loading.

Only safetensors are read. Finding files and checking them (`resolve_checkpoint`) needs no torch, so that a wrong name
or a missing file is told at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from depth_engine.checks import known_name
from depth_engine.models.catalogue import BUNDLED_FOLDER, KNOWN
from depth_engine.models.hub import HubFiles, fetch, is_hub_id
from depth_engine.models.svd.spec import SPECS, CheckpointSpec
from depth_engine.models.weight_files import (
    TRANSFORMERS_STEM,
    WEIGHTS_STEM,
    ModelPlace,
    check_model,
    weight_files,
)
from depth_engine.plain_data import read_json

if TYPE_CHECKING:
    import torch
    from diffusers.models.modeling_utils import ModelMixin

    Model = TypeVar("Model", bound=ModelMixin)


# Parts of a checkpoint.
_UNET = ModelPlace(("unet", ""))
_VAE = ModelPlace(("vae",))
_IMAGE_ENCODER = ModelPlace(("image_encoder",), TRANSFORMERS_STEM)
_UNET_FILES = HubFiles((_UNET,), ("depth_engine.json", "model_index.json"))
_BASE_FILES = HubFiles((_VAE, _IMAGE_ENCODER), ("codec/*", "feature_extractor/*", "scheduler/*"))
_ALL_FILES = HubFiles((*_UNET_FILES.models, *_BASE_FILES.models), (*_UNET_FILES.others, *_BASE_FILES.others))


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
            used.append(model_sha256(self.base / "image_encoder", TRANSFORMERS_STEM))
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
    known = KNOWN.get(text)
    if known is not None and text != "bundled":
        spec = spec or SPECS[text]
        base = base or known.base

    def check(folder: Path) -> None:
        if not (_UNET.find(folder) / "config.json").is_file():
            raise ValueError(f"model: {folder} holds no UNet: unet/config.json is missing")
        check_model(folder, _UNET)
        if base is None:
            _check_base(folder, folder, spec or _own_spec(folder))

    if text == "bundled":
        folder = BUNDLED_FOLDER
    elif known is not None:
        folder = fetch(known.source, _UNET_FILES, check=check)
    else:
        folder = _folder_or_hub(name, "model", KNOWN, _ALL_FILES if base is None else _UNET_FILES, check)
    check(folder)
    expected = spec or _own_spec(folder)
    base_folder = folder
    if base is not None:

        def check_base(path: Path) -> None:
            _check_base(path, folder, expected)

        base_folder = _folder_or_hub(base, "base", (), _BASE_FILES, check_base)
        check_base(base_folder)
    return CheckpointFiles(name=text, spec=expected, unet=_UNET.find(folder), base=base_folder, **names)


def _folder_or_hub(
    name: str | Path, argument: str, known: Collection[str], files: HubFiles, check: Callable[[Path], None]
) -> Path:
    path = Path(name)
    if path.is_dir():
        return path
    text = str(name)
    if path.exists():
        raise ValueError(f"{argument}: {text} is a file; give a checkpoint folder")
    if is_hub_id(text):
        return fetch(text, files, check=check, argument=argument)
    if known and "/" not in text:
        known_name(argument, text, [*known, "a folder", "owner/name on the hub"])
    raise FileNotFoundError(f"{argument}: no such folder: {text}")


def _own_spec(folder: Path) -> CheckpointSpec:
    """What a checkpoint says of itself."""
    path = folder / "depth_engine.json"
    if not path.is_file():
        raise ValueError(
            f"spec: {folder} carries no depth_engine.json, so say what it expects; accepted: {', '.join(SPECS)}"
        )
    return CheckpointSpec.from_json(read_json(path), str(path))


def _check_base(base: Path, folder: Path, spec: CheckpointSpec) -> None:
    """See that all is there that a UNet in `folder` needs around it; `base` may be the same folder."""
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
        check_model(base, _VAE)
    if spec.embedding != "none":
        check_model(base, _IMAGE_ENCODER)


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


def load_transformer(model_class: type, folder: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """Load a model of transformers as that library does, names of its older versions included.

    The tensors are handed over: which of a folder's files hold them is known in one place, here.

    Args:
        model_class: Its class.
        folder: The model's own folder.
        dtype: To compute in.

    Returns:
        The model, and what the library tells of keys that are missing, surplus or misshapen: the caller judges.

    Raises:
        ValueError: A file is missing or can't be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors = {}
    for path in weight_files(folder, TRANSFORMERS_STEM):
        try:
            tensors |= load_file(path)
        except SafetensorError as error:
            raise ValueError(f"model: {path} is not a whole safetensors file ({error})") from error
    own: Any = model_class
    return transformer_of_tensors(
        model_class, own.config_class.from_pretrained(folder, local_files_only=True), tensors, dtype
    )


def transformer_of_tensors(
    model_class: type, config: Any, tensors: dict[str, torch.Tensor], dtype: torch.dtype
) -> tuple[Any, dict[str, Any]]:
    """As `load_transformer`, of tensors that are there."""
    own: Any = model_class
    with quiet_libraries():
        return own.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars and advice of diffusers and transformers meanwhile: what matters is raised here."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    levels = [(library, library.get_verbosity()) for library in (of_diffusers, of_transformers)]
    showed_bars = of_transformers.is_progress_bar_enabled()
    for library, _ in levels:
        library.set_verbosity_error()
    of_transformers.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in levels:
            library.set_verbosity(level)
        if showed_bars:
            of_transformers.enable_progress_bar()


def check_no_faults(folder: Path, faults: Sequence[str]) -> None:
    """Turn a list of faults into one line.

    Raises:
        ValueError: If there is a fault.
    """
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise ValueError(f"model: weights in {folder} do not fit their config: {'; '.join(faults[:3])}{more}")
