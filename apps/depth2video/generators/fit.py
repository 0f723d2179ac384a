"""Whether the parts of a generator were made for each other, by their configs alone: nothing heavy loads.

Widths must agree where one network hands numbers to another. What a config does not say is not compared; loading is
strict and says the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from depth2video.generators.catalogue import GENERATORS, IP_ADAPTER
from depth2video.generators.single_file import read_configs
from depth_engine.models.safetensors_header import read_shapes
from depth_engine.models.weight_files import listed_parts
from depth_engine.plain_data import read_json

_NEEDED = {
    "bundled": "give a folder that `depth-train generator` wrote",
    "svd": "svd takes Stable Video Diffusion and a depth ControlNet made for it",
    "animatediff": "animatediff takes Stable Diffusion 1.5 and what was made for it",
    "wan-vace": "wan-vace takes Wan VACE as diffusers saves it",
}


class Fact(NamedTuple):
    """What a part says of itself.

    Attributes:
        part: Its name, such as `controlnet`.
        what: Words for it.
        value: None where it does not say.
    """

    part: str
    what: str
    value: Any


# What a ControlNet must share with the UNet that it steers: its residuals are added to the UNet's.
_STEERING = {
    "in_channels": "input channels",
    "block_out_channels": "block channels",
    "layers_per_block": "layers per block",
    "cross_attention_dim": "cross-attention width",
}


def check_parts_fit(name: str, folders: Mapping[str, Path], named: Mapping[str, str | None]) -> None:
    """See that the parts of a generator fit each other.

    Args:
        name: Generator.
        folders: Part -> where it lies, whole.
        named: Part -> folder or hub id, where the user named one.

    Raises:
        ValueError: Two do not; names the option, both values and what is needed.
    """
    compare = {"bundled": _of_small, "svd": _of_svd, "animatediff": _of_animatediff, "wan-vace": _of_wan_vace}[name]
    parts = GENERATORS[name].parts

    def called(part: str) -> str:
        return named.get(part) or parts[part].hub_id

    try:
        for one, other in compare(folders):
            if None in (one.value, other.value) or one.value == other.value:
                continue
            # The part that the user named is the one to change.
            if named.get(one.part) is None and named.get(other.part) is not None:
                one, other = other, one
            whom = "itself" if one.part == other.part else f"{parts[other.part].option} {called(other.part)}"
            against = "" if other.what == one.what else f" of {other.what}"
            raise ValueError(
                f"{one.part}: {called(one.part)} does not fit {whom}: {one.what} {_shown(one.value)} against "
                f"{_shown(other.value)}{against}"
            )
    except ValueError as error:
        part, _, why = str(error).partition(": ")
        raise ValueError(f"{parts[part].option}: {why}; {_NEEDED[name]}") from None


def _of_small(folders: Mapping[str, Path]) -> Iterator[tuple[Fact, Fact]]:
    unet, controlnet = (_config("base", folders["base"], part) for part in ("unet", "controlnet"))
    yield from _shared("base", controlnet, "base", unet, _STEERING)


def _of_svd(folders: Mapping[str, Path]) -> Iterator[tuple[Fact, Fact]]:
    base, steering = folders["base"], folders["controlnet"]
    unet, vae, encoder = (_config("base", base, part) for part in ("unet", "vae", "image_encoder"))
    controlnet = _config("controlnet", steering / "controlnet" if (steering / "controlnet").is_dir() else steering)
    latents = vae.get("latent_channels")
    yield (
        Fact("base", "UNet's input channels", unet.get("in_channels")),
        # Noisy latents beside those of the first frame.
        Fact("base", "twice the VAE's latent channels", None if latents is None else 2 * latents),
    )
    yield _widths("image encoder's width", encoder.get("projection_dim"), unet)
    yield from _shared("controlnet", controlnet, "base", unet, _STEERING)
    yield _downscales(controlnet, vae)


def _of_animatediff(folders: Mapping[str, Path]) -> Iterator[tuple[Fact, Fact]]:
    base = folders["base"]
    unet, vae, text = (_config("base", base, part) for part in ("unet", "vae", "text_encoder"))
    controlnet, motion = (_config(part, folders[part]) for part in ("controlnet", "motion_adapter"))
    _check_class("base", unet, "UNet2DConditionModel")
    _check_class("motion_adapter", motion, "MotionAdapter")
    _check_class("controlnet", controlnet, "ControlNetModel")
    yield (
        Fact("base", "UNet's input channels", unet.get("in_channels")),
        Fact("base", "VAE's latent channels", vae.get("latent_channels")),
    )
    yield _widths("text encoder's width", text.get("hidden_size"), unet)
    yield from _shared("controlnet", controlnet, "base", unet, _STEERING)
    yield _downscales(controlnet, vae)
    motion = {**motion, "layers_per_block": motion.get("motion_layers_per_block")}
    yield from _shared("motion_adapter", motion, "base", unet, ("block_out_channels", "layers_per_block"))
    # Adapters that go on from a picture (PIA) bring a first layer of their own; 0 and None are none.
    own_input = motion.get("conv_in_channels") or None
    yield Fact("motion_adapter", "input channels", own_input), Fact("base", "input channels", unet.get("in_channels"))
    if "ip_adapter" in folders:
        yield from _of_ip_adapter(folders["ip_adapter"], unet)


def _of_ip_adapter(folder: Path, unet: Mapping[str, Any]) -> Iterator[tuple[Fact, Fact]]:
    try:
        shapes = read_shapes(folder / IP_ADAPTER)
    except ValueError as error:
        raise ValueError(f"ip_adapter: {str(error).removeprefix('model: ')}") from error
    wanted = "cross-attention width"
    width = shapes.get("ip_adapter.1.to_k_ip.weight", [None])[-1]
    yield Fact("ip_adapter", wanted, width), Fact("base", wanted, unet.get("cross_attention_dim"))
    encoder = _config("ip_adapter", folder / "models" / "image_encoder")
    yield (
        Fact("ip_adapter", "projection's width", shapes.get("image_proj.proj.weight", [None])[-1]),
        Fact("ip_adapter", "image encoder's width", encoder.get("projection_dim")),
    )


def _of_wan_vace(folders: Mapping[str, Path]) -> Iterator[tuple[Fact, Fact]]:
    base = folders["base"]
    listed = listed_parts(base)
    transformers = sorted(listed & {"transformer", "transformer_2"})
    if not transformers or "scheduler" not in listed:
        lacking = "scheduler" if transformers else "transformer"
        raise ValueError(f"base: model_index.json in {base} names no {lacking}")
    vae, text = (_config("base", base, part) for part in ("vae", "text_encoder"))
    for part in transformers:
        config = _config("base", base, part)
        _check_class("base", config, "WanVACETransformer3DModel")
        yield (
            Fact("base", f"{part}'s text width", config.get("text_dim")),
            Fact("base", "text encoder's width", text.get("d_model")),
        )
        yield (
            Fact("base", f"{part}'s input channels", config.get("in_channels")),
            Fact("base", "VAE's latent channels", vae.get("z_dim")),
        )


def _config(part: str, place: Path, model: str = "") -> dict[str, Any]:
    """Config of a model of a part; that of a single file says what its tensors' shapes say."""
    try:
        if place.is_dir():
            return read_json(place / model / "config.json")
        configs = read_configs(place)
    except ValueError as error:
        raise ValueError(f"{part}: {error}") from error
    held = configs[""]["_class_name"] if "" in configs else "whole Stable Diffusion"
    return configs.get(model, {"_class_name": held})


def _check_class(part: str, config: Mapping[str, Any], wanted: str) -> None:
    """A config of another class may have the same names of widths."""
    held = config.get("_class_name", wanted)
    if held != wanted:
        raise ValueError(f"{part}: it holds a {held}, not the {wanted} that is needed")


def _shared(
    part: str, config: Mapping[str, Any], other: str, of_other: Mapping[str, Any], keys: Iterable[str]
) -> Iterator[tuple[Fact, Fact]]:
    for key in keys:
        values = [_for_each_level(key, given) for given in (config, of_other)]
        yield Fact(part, _STEERING[key], values[0]), Fact(other, _STEERING[key], values[1])


def _for_each_level(key: str, config: Mapping[str, Any]) -> Any:
    """The value of a config, for every level where one number may stand for all."""
    value, channels = config.get(key), config.get("block_out_channels")
    whole = isinstance(value, int) and key in ("layers_per_block", "cross_attention_dim")
    return [value] * len(channels) if whole and isinstance(channels, list) else value


def _widths(what: str, width: Any, unet: Mapping[str, Any]) -> tuple[Fact, Fact]:
    """What is looked at, and the UNet's cross-attention."""
    wanted = unet.get("cross_attention_dim")
    wanted = wanted[0] if isinstance(wanted, list) else wanted
    return Fact("base", what, width), Fact("base", "UNet's cross-attention width", wanted)


def _downscales(controlnet: Mapping[str, Any], vae: Mapping[str, Any]) -> tuple[Fact, Fact]:
    """A ControlNet's control must come down to the size of the VAE's latents."""
    sizes = [
        2 ** (len(channels) - 1) if isinstance(channels, list) else None
        for channels in (controlnet.get("conditioning_embedding_out_channels"), vae.get("block_out_channels"))
    ]
    return Fact("controlnet", "downscale of the control", sizes[0]), Fact("base", "VAE's downscale", sizes[1])


def _shown(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return str(value[0]) if len(set(value)) == 1 else ", ".join(str(entry) for entry in value)
