"""A camera, not a renderer: from linear light to the pictures that people have, with all that goes wrong on the way.

Everything is drawn once a clip, so that a clip looks as if one camera had taken it; only noise differs from frame to
frame. Depth is moved along where pixels move (bars, crops), and is otherwise untouched.
"""

from __future__ import annotations

import math
import subprocess
from dataclasses import dataclass

import cv2
import numpy as np

# Shares of clips that show each effect.
_SHARES = {
    "defocus": 0.25,
    "motion_blur": 0.2,
    "small_source": 0.2,
    "sharpened": 0.3,
    "jpeg": 0.4,
    "h264": 0.25,
    "bars": 0.05,
    "grey": 0.08,
    "text": 0.06,
    "vignette": 0.5,
    "equalized": 0.05,
}
# A camera meters for the mean of the logarithms; so many stops off it, one in four far off.
_STOPS, _FAR_STOPS = 0.8, 2.2
# At the most this share of a picture may be burnt out or black.
_CLIPPED = 1 / 3


@dataclass(frozen=True)
class Developed:
    """Pictures of a clip.

    Attributes:
        rgb: uint8 `[T, H, W, 3]`.
        valid: bool `[T, H, W]`: False under bars.
    """

    rgb: np.ndarray
    valid: np.ndarray


def develop(radiance: np.ndarray, depth_m: np.ndarray, rng: np.random.Generator) -> Developed:
    """Take a picture of linear light.

    Args:
        radiance: float `[T, H, W, 3]`, any scale.
        depth_m: `[T, H, W]`, inf where the sky is: what is out of focus depends on it.
        rng: All draws.
    """
    does = {name: bool(rng.random() < share) for name, share in _SHARES.items()}
    frames, height, width, _ = radiance.shape
    light = np.maximum(radiance.astype(np.float32), 0) * _exposure(radiance, rng)
    light *= _white_balance(rng)
    if does["vignette"]:
        light *= _vignette(height, width, rng.uniform(0.1, 0.7))[..., None]
    if does["defocus"]:
        light = _defocus(light, depth_m, rng)
    if does["motion_blur"]:
        kernel = _streak(rng.uniform(2, 9), rng.uniform(0, math.pi))
        light = np.stack([cv2.filter2D(frame, -1, kernel, borderType=cv2.BORDER_REFLECT) for frame in light])
    # Photons come one by one: noise grows with the root of the light; reading adds its own.
    shot, read = 10 ** rng.uniform(-3.2, -1.3), 10 ** rng.uniform(-3.5, -1.8)
    deviation = np.sqrt(shot**2 * np.maximum(light, 0) + read**2)
    noise = rng.standard_normal(light.shape, dtype=np.float32) * deviation
    if rng.random() < 0.4:  # a denoiser, or a coarse sensor, leaves blotches
        noise = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.8) * 1.6 for frame in noise])
    image = _tone(np.maximum(light + noise, 0), rng)
    if does["grey"]:
        image[:] = image.mean(axis=-1, keepdims=True) * np.array(
            [1, 1, 1] if rng.random() < 0.6 else [1.05, 1.0, 0.85], dtype=np.float32
        )
    if does["small_source"]:
        image = _from_small(image, rng.uniform(0.35, 0.85), rng)
    if does["sharpened"]:
        amount, radius = rng.uniform(0.3, 1.5), rng.uniform(0.6, 1.6)
        image = np.stack([frame + amount * (frame - cv2.GaussianBlur(frame, (0, 0), radius)) for frame in image])
    rgb = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    if does["equalized"]:
        rgb = np.stack([_equalize(frame) for frame in rgb])
    if does["text"]:
        _write_text(rgb, rng)
    valid = np.ones((frames, height, width), dtype=bool)
    if does["bars"]:
        _draw_bars(rgb, valid, rng)
    if does["h264"] and frames > 1:
        rgb = _through_h264(rgb, int(rng.integers(24, 40)))
    elif does["jpeg"] or does["h264"]:
        quality = int(rng.integers(12, 92))
        rgb = np.stack([_through_jpeg(frame, quality) for frame in rgb])
    return Developed(rgb, valid)


def _exposure(radiance: np.ndarray, rng: np.random.Generator) -> float:
    """Gain: metered on a part of the picture, then off by some stops, but not so far that most of it is lost."""
    grey = radiance[0, ::4, ::4].astype(np.float32).mean(axis=-1)
    if rng.random() < 0.3:  # a spot meter: the rest burns out or sinks
        h, w = grey.shape
        y, x = int(rng.integers(0, max(1, h - h // 3))), int(rng.integers(0, max(1, w - w // 3)))
        metered = grey[y : y + h // 3 + 1, x : x + w // 3 + 1]
    else:
        metered = grey
    stops = rng.normal(0, _STOPS) if rng.random() < 0.75 else rng.uniform(-_FAR_STOPS, _FAR_STOPS)
    gain = 0.18 / max(float(np.exp(np.log(metered + 1e-4).mean())), 1e-6) * 2.0**stops
    bright, dark = float(np.quantile(grey, 1 - _CLIPPED)), float(np.quantile(grey, _CLIPPED))
    gain = min(gain, 1.0 / max(bright, 1e-6))
    return max(gain, min(0.02 / max(dark, 1e-6), 1.0 / max(bright, 1e-6)))


def _white_balance(rng: np.random.Generator) -> np.ndarray:
    """Gains `[3]` of a balance that is a little, and now and then very, wrong."""
    wrong = 0.06 if rng.random() < 0.7 else 0.22
    warm, green = rng.normal(0, wrong), rng.normal(0, wrong / 3)
    return np.exp(np.array([warm, green, -warm], dtype=np.float32))


def _vignette(height: int, width: int, strength: float) -> np.ndarray:
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    return (1 / (1 + strength * (x**2 + y**2) / 2) ** 2).astype(np.float32)


def _defocus(light: np.ndarray, depth_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur by distance from the plane in focus, in three layers of strength; now and then of the whole picture."""
    strongest = rng.uniform(0.8, 4.0)
    disparity = 1 / np.maximum(np.nan_to_num(depth_m, posinf=1e4), 1e-2)
    if rng.random() < 0.3:
        return np.stack([cv2.GaussianBlur(frame, (0, 0), strongest / 3) for frame in light])
    height, width = disparity.shape[1:]
    focus = disparity[0, int(rng.integers(0, height)), int(rng.integers(0, width))]
    spread = np.abs(disparity - focus)
    radius = strongest * np.minimum(spread / (np.quantile(spread[0], 0.9) + 1e-6), 1)
    result = []
    for frame, wanted in zip(light, radius.astype(np.float32), strict=True):
        out = frame
        soft = cv2.GaussianBlur(wanted, (0, 0), 1.5)
        for level in (strongest / 3, strongest * 2 / 3, strongest):
            share = np.clip(soft / level * 1.5 - 0.5, 0, 1)[..., None]
            out = out * (1 - share) + cv2.GaussianBlur(frame, (0, 0), level * 0.6) * share
        result.append(out)
    return np.stack(result)


def _streak(length: float, angle: float) -> np.ndarray:
    """Kernel of a straight motion while the shutter is open."""
    side = int(length) // 2 * 2 + 3
    kernel = np.zeros((side, side), dtype=np.float32)
    middle, reach = side // 2, length / 2
    ends = [
        (int(round(middle + sign * reach * math.cos(angle))), int(round(middle + sign * reach * math.sin(angle))))
        for sign in (-1, 1)
    ]
    cv2.line(kernel, ends[0], ends[1], (1.0,), 1)
    return kernel / kernel.sum()


def _tone(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From light to code values: a film-like shoulder or a hard clip, gamma, contrast, saturation."""
    if rng.random() < 0.6:
        white = rng.uniform(1.5, 8)
        light = light * (1 + light / white**2) / (1 + light)
        light = light * rng.uniform(1.0, 1.5)
    image = np.clip(light, 0, 1) ** np.float32(1 / rng.uniform(1.8, 2.6))
    contrast = rng.uniform(-0.3, 0.7)
    image = image + contrast * (image * image * (3 - 2 * image) - image)
    grey = image.mean(axis=-1, keepdims=True)
    image = grey + (image - grey) * np.float32(rng.uniform(0.5, 1.5))
    lift = rng.uniform(0, 0.12) if rng.random() < 0.2 else 0.0  # haze in the lens, a log profile
    return (lift + image * (1 - lift)).astype(np.float32)


def _from_small(image: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """As if it had been stored smaller and enlarged."""
    height, width = image.shape[1:3]
    size = max(8, round(width * scale)), max(8, round(height * scale))
    how = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)[int(rng.integers(3))]
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in image]
    return np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in small])


def _equalize(rgb: np.ndarray) -> np.ndarray:
    """Local contrast stretched, as editing programs offer it."""
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(2.5, (8, 8)).apply(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _write_text(rgb: np.ndarray, rng: np.random.Generator) -> None:
    """A subtitle or a corner logo, drawn into the frames; what is behind keeps its depth."""
    height, width = rgb.shape[1:3]
    words = "".join(chr(int(v)) for v in rng.choice(np.r_[65:91, 97:123, 32:33], int(rng.integers(3, 28))))
    size = height / 400 * rng.uniform(0.7, 1.6)
    place = (int(rng.uniform(0, 0.4) * width), int(rng.choice([0.1, 0.9, 0.93]) * height))
    shade = tuple(int(v) for v in (rng.integers(200, 256, 3) if rng.random() < 0.8 else rng.integers(0, 256, 3)))
    for frame in rgb:
        cv2.putText(frame, words, place, int(rng.integers(0, 1)), size, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(frame, words, place, 0, size, shade, 1, cv2.LINE_AA)


def _draw_bars(rgb: np.ndarray, valid: np.ndarray, rng: np.random.Generator) -> None:
    """Black bars above and below, or at the sides."""
    share = rng.uniform(0.04, 0.16)
    if rng.random() < 0.7:
        bar = max(1, int(rgb.shape[1] * share))
        places = (slice(None, bar), slice(-bar, None))
        for place in places:
            rgb[:, place], valid[:, place] = 0, False
    else:
        bar = max(1, int(rgb.shape[2] * share))
        for place in (slice(None, bar), slice(-bar, None)):
            rgb[:, :, place], valid[:, :, place] = 0, False


def _through_jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    """Encode and decode."""
    done, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1] if done else rgb


def _through_h264(rgb: np.ndarray, crf: int) -> np.ndarray:
    """Encode and decode with the packaged ffmpeg; the frames as they were where it fails."""
    from depth_engine.video.ffmpeg_process import find_ffmpeg

    frames, height, width, _ = rgb.shape
    if height % 2 or width % 2:
        return rgb
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25"]
    encode = [find_ffmpeg(), "-v", "error", *raw, "-i", "-", "-c:v", "libx264", "-preset", "ultrafast", "-threads", "1"]
    try:
        coded = subprocess.run(
            [*encode, "-crf", str(crf), "-pix_fmt", "yuv420p", "-f", "h264", "-"],
            input=rgb.tobytes(),
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        decode = [find_ffmpeg(), "-v", "error", "-threads", "1", "-f", "h264", "-i", "-"]
        plain = subprocess.run(
            [*decode, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
            input=coded,
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return rgb
    return np.frombuffer(plain, dtype=np.uint8).reshape(rgb.shape) if len(plain) == rgb.size else rgb
