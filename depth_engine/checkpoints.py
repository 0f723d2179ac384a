"""The table of known checkpoints, what each one expects, where its files are, and strict loading.

Only safetensors are read. Finding files and checking them (`resolve_checkpoint`) needs no torch, so that a wrong name
or a missing file is told at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from depth_engine.plain_data import from_plain
from depth_engine.settings import known_name

if TYPE_CHECKING:
    import torch
    from diffusers.models.modeling_utils import ModelMixin

    Model = TypeVar("Model", bound=ModelMixin)

BUNDLED_FOLDER = Path(__file__).parent / "weights" / "bundled"
WEIGHTS_STEM = "diffusion_pytorch_model"
# What a download takes: hub repositories carry the same weights several times over.
UNET_FILES = ("*.json", f"{WEIGHTS_STEM}*", "unet/*")
BASE_FILES = ("vae/*", "image_encoder/*", "feature_extractor/*", "scheduler/*")
ALL_FILES = (*UNET_FILES, *BASE_FILES)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


Kind = Literal["disparity", "depth"]


@dataclass(frozen=True)
class CheckpointSpec:
    """What a checkpoint expects: data, not code.

    Attributes:
        kind: What the output is: `disparity` (near = large) or `depth` (far = large), both affine-invariant in [0, 1].
        condition_first: Condition latents come before the noisy ones on the channels (ChronoDepth) or after (SVD).
        scale_condition: Condition latents are multiplied by the VAE's scaling factor.
        embedding: CLIP embedding: of an all-zero image, one per frame, or none (zeros).
        added_time_ids: SVD's micro-conditioning: fps, motion bucket, noise augmentation.
        condition_noise: Strength of the noise added to the RGB pixels before the codec.
        start: `noise` starts from normals scaled by sqrt(sigma_max^2 + 1); `zero` starts from zero (one-step models).
        to_depth: How decoded channels become depth.
        decode_chunk: Frames that the temporal decoder takes at a time, counted from the shot's first frame.
        context_c_noise: c_noise = ln(sigma) / 4 that flags clean context frames.
        sampler: Recommended sampler.
        strategy: Recommended strategy.
        window: Recommended frames per window.
        stride: Recommended new frames per window.
        steps: Recommended denoising steps.
        multiple: What both sides of the picture must be divisible by.
        max_res: Recommended longest side in pixels.
        flow: Whether `context` also carries depth along optical flow (`flow.py`); needs a lossless codec.
    """

    kind: Kind
    condition_first: bool
    scale_condition: bool
    embedding: Literal["zero_image", "per_frame", "none"]
    added_time_ids: tuple[float, float, float]
    condition_noise: float
    start: Literal["noise", "zero"]
    to_depth: Literal["mean_then_clip", "clip_then_mean"]
    decode_chunk: int
    context_c_noise: float
    sampler: Literal["euler", "reference"]
    strategy: Literal["context", "replacement", "independent", "crossfade"]
    window: int
    stride: int
    steps: int
    multiple: int
    max_res: int
    flow: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data for `depth_engine.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any], where: str) -> CheckpointSpec:
        """Read back what `to_json` wrote.

        Raises:
            ValueError: If a field is missing or unknown, or its value is not accepted.
        """
        spec = from_plain(cls, data, where)
        for name in ("decode_chunk", "window", "stride", "steps", "multiple", "max_res"):
            if getattr(spec, name) < 1:
                raise ValueError(f"{where}: {name}: {getattr(spec, name)} is not accepted; give a number from 1 up")
        if spec.stride > spec.window:
            raise ValueError(f"{where}: stride: {spec.stride} is more than the window, {spec.window}")
        return spec


# reference: arXiv 2406.01493 and its released pipeline; CLIP of a zero image, RGB first, state = scaled input.
CHRONODEPTH = CheckpointSpec(
    kind="depth",
    condition_first=True,
    scale_condition=True,
    embedding="zero_image",
    added_time_ids=(6.0, 127.0, 0.0),
    condition_noise=0.0,
    start="noise",
    to_depth="mean_then_clip",
    decode_chunk=8,
    context_c_noise=-4.0,
    sampler="reference",
    strategy="context",
    window=10,
    stride=5,
    steps=5,
    multiple=64,
    max_res=1024,
)
# reference: arXiv 2409.02095 and its released pipeline (110 frames, overlap 25, 5 steps without guidance since v1.0.1).
# It has no notion of clean context frames; the level is SVD's sigma_min, the lowest it was trained near.
DEPTHCRAFTER = CheckpointSpec(
    kind="disparity",
    condition_first=False,
    scale_condition=False,
    embedding="per_frame",
    added_time_ids=(7.0, 127.0, 0.02),
    condition_noise=0.02,
    start="noise",
    to_depth="clip_then_mean",
    decode_chunk=8,
    context_c_noise=-1.55,
    sampler="euler",
    strategy="crossfade",
    window=110,
    stride=85,
    steps=5,
    multiple=64,
    max_res=1024,
)
SPECS = {"chronodepth": CHRONODEPTH, "depthcrafter": DEPTHCRAFTER}


@dataclass(frozen=True)
class KnownCheckpoint:
    """A row of `depth-engine models`.

    Attributes:
        source: Folder in the package, or hub id of the UNet.
        base: Hub id of the SVD that the UNet belongs to, or None if the source is complete.
        licence: Terms of the weights.
        summary: One line about it.
    """

    source: str
    base: str | None
    licence: str
    summary: str


SVD_XT = "stabilityai/stable-video-diffusion-img2vid-xt"
KNOWN = {
    "bundled": KnownCheckpoint(
        "(in the package)", None, "Apache-2.0", "small, runs on a CPU with no download; trained on procedural scenes"
    ),
    "chronodepth": KnownCheckpoint(
        "jhshao/ChronoDepth-v1", SVD_XT, "MIT (UNet); Stability AI Community (base)", "1.5 B parameters, needs a GPU"
    ),
    "depthcrafter": KnownCheckpoint(
        "tencent/DepthCrafter",
        SVD_XT,
        "Tencent, research only (UNet); Stability AI Community (base)",
        "1.5 B parameters, needs a GPU",
    ),
}


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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ValueError: If it does not hold one.
    """
    try:
        data = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds no JSON object")
    return data


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
