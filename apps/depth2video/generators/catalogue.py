"""The table of generators: what each one is and needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from depth_engine.models.hub import HubFiles
from depth_engine.models.weight_files import TRANSFORMERS_STEM, ModelPlace

SMALL_FOLDER = Path(__file__).parents[1] / "weights" / "bundled"
IN_PACKAGE = "(in the package)"
# What SVD was trained with (arXiv 2311.15127): frames per second, and how much moves. Beyond, it was told nothing.
FPS_IDS, MOTIONS = (1, 30), (1, 255)
MOTION = 127  # SVD's own default; the control says how things move


@dataclass(frozen=True)
class Part:
    """A checkpoint that a generator is made of.

    Attributes:
        option: Its command line option.
        hub_id: Where it is published.
        files: Its files.
        licence: Terms of the weights.
        optional: Loaded only where it is named or needed.
        single_file: Whether it loads from one file in its authors' layout, too.
    """

    option: str
    hub_id: str
    files: HubFiles
    licence: str
    optional: bool = False
    single_file: bool = False


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
        told_motion: Whether it is told the frame rate and how much moves (SVD's micro-conditioning).
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
    told_motion: bool = False


# The tokenizers of CLIP and T5, in the files of their older classes or in the one of today's.
_TOKENIZER = (
    "tokenizer/tokenizer.json|tokenizer/vocab.json|tokenizer/spiece.model",
    "tokenizer/tokenizer.json|tokenizer/merges.txt|tokenizer/spiece.model",
)
_SCHEDULER = "scheduler/scheduler_config.json"
_TEXT_ENCODER = ModelPlace(("text_encoder",), TRANSFORMERS_STEM)
_UNET, _VAE = ModelPlace(("unet",)), ModelPlace(("vae",))
_SVD_FILES = HubFiles(
    (_UNET, _VAE, ModelPlace(("image_encoder",), TRANSFORMERS_STEM)),
    ("feature_extractor/*", "scheduler/*", "model_index.json"),
    (_SCHEDULER,),
)
_SD15_FILES = HubFiles(
    (_UNET, _VAE, _TEXT_ENCODER), ("tokenizer/*", "scheduler/*", "model_index.json"), (_SCHEDULER, *_TOKENIZER)
)
_WAN_FILES = HubFiles(
    (
        ModelPlace(("transformer",), if_listed=True),
        ModelPlace(("transformer_2",), if_listed=True),
        _VAE,
        _TEXT_ENCODER,
    ),
    ("tokenizer/*", "scheduler/*", "model_index.json"),
    ("model_index.json", _SCHEDULER, *_TOKENIZER),
)
IP_ADAPTER = "models/ip-adapter_sd15.safetensors"
"""The adapter's own file in its folder."""
_IP_ADAPTER_FILES = HubFiles((ModelPlace(("models/image_encoder",), TRANSFORMERS_STEM),), (IP_ADAPTER,), (IP_ADAPTER,))
_SMALL_FILES = HubFiles((_UNET, ModelPlace(("controlnet",))))
_ONE_MODEL = HubFiles((ModelPlace(),))
_ROWS = (
    GeneratorSpec(
        name="bundled",
        summary="small, in the package: runs on a CPU with no download; trained on procedural scenes only",
        parts={"base": Part("--base", IN_PACKAGE, _SMALL_FILES, "Apache-2.0")},
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
                HubFiles((ModelPlace(("controlnet", "")),)),
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
        told_motion=True,
    ),
    GeneratorSpec(
        name="animatediff",
        summary="Stable Diffusion 1.5 with a motion adapter and a depth ControlNet: a prompt gives the look",
        parts={
            "base": Part(
                "--base",
                "stable-diffusion-v1-5/stable-diffusion-v1-5",
                _SD15_FILES,
                "CreativeML OpenRAIL-M",
                single_file=True,
            ),
            "motion_adapter": Part(
                "--motion-adapter",
                "guoyww/animatediff-motion-adapter-v1-5-3",
                _ONE_MODEL,
                "Apache-2.0",
                single_file=True,
            ),
            "controlnet": Part(
                "--controlnet", "lllyasviel/control_v11f1p_sd15_depth", _ONE_MODEL, "OpenRAIL", single_file=True
            ),
            "ip_adapter": Part(
                "--ip-adapter",
                "h94/IP-Adapter",
                _IP_ADAPTER_FILES,
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
                _WAN_FILES,
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
        words.append("higher --strength keeps less of the source")
    if spec.told_motion:
        words.append("--fps-id and --motion say how it moves")
    return "; ".join(words)
