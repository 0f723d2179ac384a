"""What a file is, in label-value lines: a clip or a depth output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from depth_engine.depth.formats import split_depth_path
from depth_engine.depth.sidecar import read_sidecar, sidecar_path

if TYPE_CHECKING:
    from depth_engine.models.svd.spec import CheckpointSpec


def describe(file: str) -> Iterator[tuple[str, str]]:
    """Lines about a clip, a depth file, its sidecar, or a folder of results.

    Raises:
        ValueError: It is neither.
    """
    sidecar = _find_sidecar(Path(file))
    if sidecar is None:
        yield from _describe_clip(file)
    else:
        yield from _describe_depth(sidecar)


def _find_sidecar(path: Path) -> Path | None:
    if path.suffix == ".json":
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return path
    if path.is_dir() and sidecar_path(path / "depth").is_file():
        return sidecar_path(path / "depth")
    try:
        base, _ = split_depth_path(path)
    except ValueError:
        return None
    sidecar = sidecar_path(base)
    # A clip.json beside a clip.mp4 may be anything.
    return sidecar if path.exists() and sidecar.is_file() and "format_version" in sidecar.read_text() else None


def _describe_clip(file: str) -> Iterator[tuple[str, str]]:
    from depth_engine.video.read import probe

    info = probe(file)
    yield "clip", str(file)
    yield (
        "picture",
        f"{info.width}x{info.height}" + (f", rotated by {info.rotation_deg} deg" if info.rotation_deg else ""),
    )
    yield "frame rate", f"{float(info.fps):.3f} fps"
    yield "frames", "unknown" if info.frame_count is None else str(info.frame_count)
    if info.duration_s is not None:
        yield "duration", f"{info.duration_s:.2f} s"
    yield "codec", f"{info.codec}, {info.pixel_format}, {info.bit_depth} bit"
    yield "sound", "yes" if info.has_audio else "no"
    for note in info.notes:
        yield "note", note


def _describe_depth(sidecar: Path) -> Iterator[tuple[str, str]]:
    content = read_sidecar(sidecar)
    times_s = content["times_s"]
    yield "depth", str(sidecar.with_suffix(""))
    yield "kind", f"{content['kind']} ({content.get('meaning', '')})"
    yield "picture", f"{content['width']}x{content['height']}"
    yield "frames", f"{content['frame_count']}, {times_s[0]:.2f} to {times_s[-1]:.2f} s, {content['fps']} fps"
    yield "shots", f"{len(content.get('shots', []))}, starting at frames {content.get('shots', [])}"
    yield "range", f"{content['value_range']} over counts 0..65535 where the format is 16-bit"
    if content.get("checkpoint"):
        yield "checkpoint", f"{content['checkpoint'].get('name')} ({content['checkpoint'].get('sha256', '')[:12]})"
    yield "source", str(content.get("source"))
    for key, value in content.get("settings", {}).items():
        yield f"  {key}", str(value)


def _size_of(spec: CheckpointSpec) -> str:
    if spec.area_px:
        return f"about {spec.area_px} pixels of any shape"
    return f"longest side up to {spec.max_res} px"


def describe_models() -> list[str]:
    """Lines on the known checkpoints: what they give, where they come from, and their licences."""
    from depth_engine.models.catalogue import BUNDLED_FOLDER, KNOWN
    from depth_engine.models.svd.spec import SPECS, CheckpointSpec
    from depth_engine.plain_data import read_json

    lines = []
    for name, known in KNOWN.items():
        own = BUNDLED_FOLDER / "depth_engine.json"
        spec = SPECS.get(name) or CheckpointSpec.from_json(read_json(own), str(own))
        lines += [
            f"{name}: {known.summary}",
            f"  source    {known.source}" + (f" on {known.base}" if known.base else ""),
            f"  licence   {known.licence}",
            f"  gives     {spec.kind}, {_size_of(spec)}, multiples of {spec.multiple}",
            f"  defaults  window {spec.window}, stride {spec.stride}, steps {spec.steps}, strategy {spec.strategy}, "
            f"sampler {spec.sampler}" + (", depth carried along optical flow" if spec.flow else ""),
        ]
    return [
        *lines,
        "Also: a folder in diffusers layout (--spec if it has no depth_engine.json), or owner/name@revision.",
    ]
