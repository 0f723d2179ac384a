"""The generators: one interface, the table of what each one is and needs, and how its parts are found and loaded.

Nothing here needs torch until `load_generator`, so that a wrong name, size or prompt is told at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from depth_engine.checkpoints import PICKLES, WEIGHTS_STEM, fetch
from depth_engine.settings import known_name

if TYPE_CHECKING:
    from torch import Tensor

    from depth_engine.derived_clip import Piece

SMALL_FOLDER = Path(__file__).parent / "weights" / "bundled"
IN_PACKAGE = "(in the package)"
OFFLOADS = ("none", "model", "sequential")
Offload = Literal["none", "model", "sequential"]


@dataclass(frozen=True)
class Request:
    """What to generate.

    Attributes:
        prompt: What the clip shall show, for generators that read.
        negative_prompt: What it shall not show.
        image: uint8 `[H, W, 3]` at generation size: the first frame (svd, bundled), a style (animatediff) or a
            reference (wan-vace).
        control_scale: How strongly depth steers, 0 is not at all.
        control_start: Share of the denoising steps after which control begins, 0 to 1.
        control_end: Share after which it ends, above `control_start`.
        steps: Denoising steps; None: the generator's own number.
        guidance: Classifier-free guidance; None: the generator's own.
        strength: Video-to-video: share of the denoising that the source goes through; None: the source is not used.
        video: The source's frames, uint8 `[H, W, 3]` at generation size, in step with the control; goes with
            `strength`.
        seed: Of the noise, which belongs to (seed, frame).
        fps: Frame rate of the clip.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    image: np.ndarray | None = None
    control_scale: float = 1.0
    control_start: float = 0.0
    control_end: float = 1.0
    steps: int | None = None
    guidance: float | None = None
    strength: float | None = None
    video: Iterator[np.ndarray] | None = None
    seed: int = 0
    fps: float = 24.0


class Generator(Protocol):
    """Makes a clip of any length, window by window.

    Attributes:
        window: Frames per window; no more frames are held as pixels, but for what a window hands to the next.
        stride: New frames per window.
        size_multiple: What both sides must be divisible by.
    """

    window: int
    stride: int
    size_multiple: int

    def generate(
        self, control: Iterator[np.ndarray], request: Request, *, state: dict[str, Tensor] | None
    ) -> Iterator[Piece]:
        """Generate a clip.

        Args:
            control: Control frames, uint8 `[H, W, 3]`, near is white. With `state` given, the first one is that of the
                first frame that is not finished.
            request: What to generate.
            state: Of the last piece of an earlier process, to go on after it; None or empty: from the start.

        Returns:
            Iterator over pieces: finished frames, and the state that a later process needs to go on after them.
        """
        ...


@dataclass(frozen=True)
class Part:
    """A checkpoint that a generator is made of.

    Attributes:
        option: Its command line option.
        hub_id: Where it is published.
        files: Patterns of the files that are needed.
        licence: Terms of the weights.
        optional: Loaded only where it is named or needed.
    """

    option: str
    hub_id: str
    files: tuple[str, ...]
    licence: str
    optional: bool = False


@dataclass(frozen=True)
class GeneratorSpec:
    """A row of `depth2video generators`.

    Attributes:
        name: As the user names it.
        summary: One line about it.
        parts: Name -> checkpoint.
        vram: GPU memory at its usual size.
        frame_rule: What numbers of frames it works with.
        window: Frames per window.
        stride: New frames per window.
        size_multiple: What both sides must be divisible by.
        max_res: Longest side in pixels where no size is given.
        steps: Denoising steps where none are given.
        guidance: Classifier-free guidance where none is given.
        prompt: `needed` or `none`.
        image: What `--image` is to it: `first frame`, `style` or `reference`.
        strength: Whether it does video-to-video.
    """

    name: str
    summary: str
    parts: Mapping[str, Part]
    vram: str
    frame_rule: str
    window: int
    stride: int
    size_multiple: int
    max_res: int
    steps: int
    guidance: float
    prompt: Literal["needed", "none"] = "none"
    image: Literal["first frame", "style", "reference"] = "first frame"
    strength: bool = False


def _model(folder: str, stem: str = WEIGHTS_STEM) -> tuple[str, ...]:
    """Files of one model: hub repositories carry the same weights several times over."""
    at = f"{folder}/" if folder else ""
    return (
        f"{at}config.json",
        f"{at}{stem}.safetensors",
        f"{at}{stem}-*.safetensors",
        f"{at}{stem}.safetensors.index.json",
    )


_TEXT = ("tokenizer/*", *_model("text_encoder", "model"), "scheduler/*", "model_index.json")
_SVD_FILES = (
    *_model("unet"),
    *_model("vae"),
    *_model("image_encoder", "model"),
    "feature_extractor/*",
    "scheduler/*",
    "model_index.json",
)
_ROWS = (
    GeneratorSpec(
        name="bundled",
        summary="small, in the package: runs on a CPU with no download; trained on procedural scenes only",
        parts={"base": Part("--base", IN_PACKAGE, (), "Apache-2.0")},
        vram="none needed",
        frame_rule="any number; windows of 8",
        window=8,
        stride=6,
        size_multiple=16,
        max_res=192,
        steps=1,
        guidance=1.0,
    ),
    GeneratorSpec(
        name="svd",
        summary="Stable Video Diffusion with a depth ControlNet: the first frame gives the look",
        parts={
            "base": Part(
                "--base",
                "stabilityai/stable-video-diffusion-img2vid",
                _SVD_FILES,
                "Stability AI Community",
            ),
            "controlnet": Part(
                "--controlnet",
                "CiaraRowles/temporal-controlnet-depth-svd-v1",
                (*_model(""), *_model("controlnet")),
                "not stated",
            ),
        },
        vram="estimated 20 GB at 1024x576; --offload lowers it",
        frame_rule="any number; windows of 14, as it was trained",
        window=14,
        stride=10,
        size_multiple=64,
        max_res=1024,
        steps=25,
        guidance=3.0,
    ),
    GeneratorSpec(
        name="animatediff",
        summary="Stable Diffusion 1.5 with a motion adapter and a depth ControlNet: a prompt gives the look",
        parts={
            "base": Part(
                "--base",
                "stable-diffusion-v1-5/stable-diffusion-v1-5",
                (*_model("unet"), *_model("vae"), *_TEXT),
                "CreativeML OpenRAIL-M",
            ),
            "motion_adapter": Part(
                "--motion-adapter", "guoyww/animatediff-motion-adapter-v1-5-3", _model(""), "Apache-2.0"
            ),
            "controlnet": Part("--controlnet", "lllyasviel/control_v11f1p_sd15_depth", _model(""), "OpenRAIL"),
            "ip_adapter": Part(
                "--ip-adapter",
                "h94/IP-Adapter",
                ("models/ip-adapter_sd15.safetensors", *_model("models/image_encoder", "model")),
                "Apache-2.0",
                optional=True,
            ),
        },
        vram="estimated 10 GB at 512x512; --offload and a smaller --window lower it",
        frame_rule="any number; windows of 32 with FreeNoise over contexts of 16",
        window=32,
        stride=24,
        size_multiple=8,
        max_res=512,
        steps=25,
        guidance=7.5,
        prompt="needed",
        image="style",
        strength=True,
    ),
    GeneratorSpec(
        name="wan-vace",
        summary="Wan VACE with the depth as its control video: a prompt gives the look, an image the subject",
        parts={
            "base": Part(
                "--base",
                "Wan-AI/Wan2.1-VACE-1.3B-diffusers",
                (*_model("transformer"), *_model("transformer_2"), *_model("vae"), *_TEXT),
                "Apache-2.0",
            )
        },
        vram="18 GB reported for 1.3B at 832x480; --offload and a smaller --window lower it",
        frame_rule="any number; windows of 4 n + 1, padded and trimmed; 81 as it was trained",
        window=81,
        stride=64,
        size_multiple=16,
        max_res=832,
        steps=30,
        guidance=5.0,
        prompt="needed",
        image="reference",
    ),
)
GENERATORS: dict[str, GeneratorSpec] = {row.name: row for row in _ROWS}


def find_parts(name: str, named: Mapping[str, str | None], *, optional: tuple[str, ...] = ()) -> dict[str, Path]:
    """Folders of a generator's parts, fetched where need be.

    Args:
        name: Generator.
        named: Part -> folder or hub id, where the user named one.
        optional: Optional parts that are needed.

    Raises:
        FileNotFoundError: No such folder, or a hub id that can't be fetched; says which command fetches it elsewhere.
        ValueError: A folder holds no safetensors.
    """
    if name == "bundled":
        return {"base": small_folder(named.get("base"))}
    folders = {}
    for part_name, part in GENERATORS[name].parts.items():
        given = named.get(part_name)
        if given is None and part.optional and part_name not in optional:
            continue
        folder = _find_part(part, given or part.hub_id)
        weights = [path for path in folder.rglob("*.safetensors")]
        if not weights:
            pickles = next((path.name for pattern in PICKLES for path in folder.rglob(pattern)), None)
            instead = f", only {pickles}: pickles are not loaded" if pickles else ""
            raise ValueError(f"{part.option}: {folder} holds no .safetensors{instead}")
        folders[part_name] = folder
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
    if Path(given).is_dir():
        return Path(given)
    if given.count("/") != 1 or given.startswith((".", "/", "~")) or Path(given).parent.is_dir():
        raise FileNotFoundError(f"{part.option}: no such folder: {given}")
    try:
        return fetch(given, part.files)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{part.option}: {str(error).removeprefix('model: ')}") from error


def weights_identity(folders: Mapping[str, Path]) -> dict[str, str]:
    """Part -> a hash of its weight files' names, sizes and times: what must be the same for a run to go on."""
    hashes = {}
    for name, folder in folders.items():
        files = sorted(folder.rglob("*.safetensors"))
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
        from depth2video.small import load_small

        return load_small(folders["base"], device=chosen)
    if name == "wan-vace" and dtype == "auto" and chosen.type == "cuda":
        dtype = "bfloat16"
    number = choose_dtype(dtype, chosen)
    from depth2video.pipelines import quiet_libraries

    with quiet_libraries():
        if name == "animatediff":
            from depth2video.animatediff import load_animatediff

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
            from depth2video.svd import load_svd

            return load_svd(dict(folders), window=window, stride=stride, device=chosen, dtype=number, offload=offload)
        from depth2video.wan_vace import load_wan_vace

        return load_wan_vace(
            folders["base"], window=window, stride=stride, device=chosen, dtype=number, offload=offload
        )


def describe_generators() -> list[str]:
    """Lines of `depth2video generators`."""
    lines = []
    for name, spec in GENERATORS.items():
        lines += [f"{name}", f"  {spec.summary}"]
        for part in spec.parts.values():
            note = " (optional)" if part.optional else ""
            lines.append(f"  {part.option:<17} {part.hub_id}, {part.licence}{note}")
        lines += [
            f"  {'memory':<17} {spec.vram}",
            f"  {'frames':<17} {spec.frame_rule}",
            f"  {'sizes':<17} multiples of {spec.size_multiple}, longest side {spec.max_res} unless --size says more",
            f"  {'look':<17} {_look(spec)}",
            f"  {'defaults':<17} {spec.steps} steps, guidance {spec.guidance:g}",
            "",
        ]
    return lines[:-1]


def _look(spec: GeneratorSpec) -> str:
    words = ["--prompt"] if spec.prompt == "needed" else []
    words.append(f"--image as {spec.image}" + ("" if spec.image == "first frame" else " (optional)"))
    if spec.strength:
        words.append("--strength keeps that much less of the source")
    return "; ".join(words)
