"""What a user asks of a generator, held against what it can do; nothing heavy loads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from depth2video.generators.catalogue import FPS_IDS, GENERATORS, MOTION, MOTIONS, GeneratorSpec
from depth2video.generators.interface import OFFLOADS, Request
from depth2video.generators.loading import small_folder
from depth_engine.checks import known_name
from depth_engine.models.svd.windows import check_plan
from depth_engine.plain_data import read_json


def find_generator(name: str | None, named_parts: Mapping[str, str | None]) -> GeneratorSpec:
    """The generator that is meant.

    Args:
        name: As the user named it; None: the bundled one, if no parts are named.
        named_parts: Part -> folder or hub id, where the user named one.

    Raises:
        ValueError: It is not known, or has no such part, or parts are named without it.
        FileNotFoundError: The bundled checkpoint, or what is named in its place, is not there.
    """
    named = {part: given for part, given in named_parts.items() if given is not None}
    for part in named:
        having = [spec.name for spec in GENERATORS.values() if part in spec.parts]
        option = f"--{part.replace('_', '-')}"
        if name is None:
            raise ValueError(f"--generator: is missing; {option} goes with {' or '.join(having)}")
        if known_name("--generator", name, GENERATORS) not in having:
            raise ValueError(f"{option}: is not of {name}; it goes with --generator {' or '.join(having)}")
    spec = GENERATORS["bundled" if name is None else known_name("--generator", name, GENERATORS)]
    if spec.name != "bundled":
        return spec
    # A small generator says itself what it was trained for.
    own = read_json(small_folder(named.get("base")) / "generator.json")
    return replace(spec, window=own["window"], stride=own["window"] - own["known"], size_multiple=own["multiple"])


def choose_size(spec: GeneratorSpec, size: str | None, height: int, width: int) -> tuple[int, int]:
    """Rows and columns to generate.

    Args:
        spec: From `find_generator`.
        size: `WIDTHxHEIGHT` as the user gave it; None: the clip's proportions, no longer side above the generator's
            usual one.
        height: Of the clip.
        width: Of the clip.

    Raises:
        ValueError: The generator can't do the size; names the nearest that it can.
    """
    from depth_engine.models.resize import fit_size

    multiple = spec.size_multiple
    if size is None:
        fitted = fit_size(height, width, multiple, spec.max_res)
        return fitted.model_height, fitted.model_width
    columns, rows = parse_size(size)
    if rows % multiple or columns % multiple:
        near_width, near_height = (max(1, round(side / multiple)) * multiple for side in (columns, rows))
        raise ValueError(
            f"--size: {size} is not possible with {spec.name}, whose sides are multiples of {multiple}; nearest: "
            f"{near_width}x{near_height}"
        )
    return rows, columns


def parse_size(size: str) -> tuple[int, int]:
    """Width and height of `WIDTHxHEIGHT`.

    Raises:
        ValueError: It is no size.
    """
    width, _, height = size.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ValueError(f"--size: {size!r} is not accepted; give WIDTHxHEIGHT, such as 512x288")
    return int(width), int(height)


def choose_windows(spec: GeneratorSpec, window: int | None, stride: int | None) -> tuple[int, int]:
    """Window and stride of a generator.

    Raises:
        ValueError: They make no plan, or the generator can't do them.
    """
    if spec.name == "bundled" and (window or spec.window, stride or spec.stride) != (spec.window, spec.stride):
        raise ValueError(
            f"--window, --stride: the small generator was trained for {spec.window} and {spec.stride}; leave them out"
        )
    wan = spec.name == "wan-vace"
    # Latents hold 1 + 4 + 4 + ... frames; only so do windows share them, and noise, one to one.
    if wan and window is not None and (window % 4 != 1 or window < 5):
        near = max(5, round((window - 1) / 4) * 4 + 1)
        raise ValueError(f"--window: {window} is not 4 n + 1 from 5 up, as wan-vace needs; nearest: {near}")
    if stride is None:
        stride = spec.stride if window is None else max(1, round(window * spec.stride / spec.window))
        stride = max(4, stride // 4 * 4) if wan else stride
    window = spec.window if window is None else window
    check_plan(window, stride)
    if wan and (stride % 4 or stride >= window):
        near = min(max(4, round(stride / 4) * 4), window - 1)
        raise ValueError(f"--stride: {stride} is not a multiple of 4 below the window, {window}; nearest: {near}")
    if spec.name == "animatediff" and window < 2:
        raise ValueError(f"--window: {window} is too short for motion; give 2 or more")
    return window, stride


def check_request(spec: GeneratorSpec, request: Request) -> None:
    """Hold a request against what the generator can do.

    Raises:
        ValueError: Names the option, the value and what is accepted.
    """
    from depth_engine.models.svd.noise import seeded_noise

    if spec.prompt == "needed" and not (request.prompt or "").strip():
        raise ValueError(f"--prompt: is missing; {spec.name} makes the look from words")
    for option, text in (("--prompt", request.prompt), ("--negative-prompt", request.negative_prompt)):
        if spec.prompt == "none" and text is not None:
            raise ValueError(f"{option}: {spec.name} reads no words; --image gives the look: the first frame, edited")
    if not (math.isfinite(request.control_scale) and request.control_scale >= 0):
        raise ValueError(f"--control-scale: {request.control_scale:g} is not accepted; give a number from 0 up")
    if not 0 <= request.control_start < request.control_end <= 1:
        raise ValueError(
            f"--control-start, --control-end: {request.control_start:g} and {request.control_end:g} are not accepted; "
            "give shares of the steps with 0 <= start < end <= 1"
        )
    if request.steps is not None and request.steps < 1:
        raise ValueError(f"--steps: {request.steps} is not accepted; give a number of denoising steps from 1 up")
    if request.guidance is not None and not (math.isfinite(request.guidance) and request.guidance >= 0):
        raise ValueError(f"--guidance: {request.guidance:g} is not accepted; give a number from 0 up, 1 is none")
    guidance = spec.guidance if request.guidance is None else request.guidance
    if request.negative_prompt is not None and guidance <= 1:
        raise ValueError(
            f"--negative-prompt: has no effect without guidance, and --guidance is {guidance:g}; give more than 1"
        )
    if spec.name == "bundled" and (request.guidance is not None or (request.steps or 1) != 1):
        wrong = "--guidance" if request.guidance is not None else "--steps"
        raise ValueError(f"{wrong}: the small generator takes one step and no guidance; leave it out")
    if request.strength is not None:
        if not spec.strength:
            able = [other for other, row in GENERATORS.items() if row.strength]
            raise ValueError(
                f"--strength: {spec.name} does no video-to-video; it goes with --generator {' or '.join(able)}"
            )
        if not 0 < request.strength <= 1:
            raise ValueError(f"--strength: {request.strength:g} is not accepted; give a share above 0 and up to 1")
        if int((request.steps or spec.steps) * request.strength) < 1:
            raise ValueError(
                f"--strength: {request.strength:g} of {request.steps or spec.steps} steps is less than one step; give "
                "more of either"
            )
    for option, value, (least, most) in (
        ("--fps-id", request.fps_id, FPS_IDS),
        ("--motion", request.motion, MOTIONS),
    ):
        if value is not None and not spec.told_motion:
            able = [other for other, row in GENERATORS.items() if row.told_motion]
            raise ValueError(f"{option}: is not of {spec.name}; it goes with --generator {' or '.join(able)}")
        if value is not None and not least <= value <= most:
            raise ValueError(f"{option}: {value} is not accepted; {spec.name} knows {least} to {most}")
    seeded_noise(request.seed)


def choose_motion(spec: GeneratorSpec, request: Request, clip_fps: float) -> tuple[Request, tuple[str, ...]]:
    """The request with frame rate and motion that the generator is told, where it is told any, and notes."""
    if not spec.told_motion:
        return request, ()
    notes: tuple[str, ...] = ()
    fps_id = request.fps_id
    if fps_id is None:
        least, most = FPS_IDS
        fps_id = min(max(round(clip_fps), least), most)
        if not least <= round(clip_fps) <= most:
            notes = (
                f"{spec.name} is told {fps_id} frames per second, the nearest that it knows to the clip's {clip_fps:g} "
                "(--fps-id)",
            )
    return replace(request, fps_id=fps_id, motion=MOTION if request.motion is None else request.motion), notes


def check_device(spec: GeneratorSpec, device: str, dtype: str, offload: str) -> None:
    """Refuse a device, dtype or way of offloading that can't be, before weights load.

    Raises:
        ValueError: Says what there is.
    """
    from depth_engine.devices import choose_device, choose_dtype

    known_name("--offload", offload, OFFLOADS)
    chosen = choose_device(device)
    choose_dtype(dtype, chosen)
    if offload != "none" and chosen.type == "cpu":
        raise ValueError(f"--offload: {offload} moves weights off a GPU, and the device is the CPU; leave it out")
    if offload != "none" and spec.name == "bundled":
        raise ValueError(f"--offload: {offload} is not of the bundled generator, which is small; leave it out")
    if spec.name == "bundled" and dtype not in ("auto", "float32"):
        raise ValueError(f"--dtype: {dtype} is not of the bundled generator, which computes in float32; leave it out")
