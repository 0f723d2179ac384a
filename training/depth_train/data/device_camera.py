"""The camera of `scenes.models.camera` for whole batches, on the device that trains: no step waits for a CPU.

What each effect touches is drawn as a number of clips, not as a lot for each: so nothing waits for the device to say
how many there are. H.264 needs an encoder and is left to the other camera; JPEG stands for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Shares of a batch's clips that show each effect.
_SHARES = {
    "spot_meter": 0.3,
    "far_off": 0.25,
    "vignette": 0.5,
    "defocus": 0.25,
    "motion_blur": 0.2,
    "blotches": 0.4,
    "hue": 0.3,
    "film": 0.6,
    "lifted": 0.2,
    "grey": 0.08,
    "small_source": 0.25,
    "sharpened": 0.3,
    "local_contrast": 0.06,
    "text": 0.08,
    "bars": 0.06,
    "jpeg": 0.5,
}
# A camera meters for the mean of the logarithms; so many stops off it, some far off.
_STOPS, _FAR_STOPS = 0.8, 2.2
# At the most this share of a picture may be burnt out or black.
_CLIPPED = 1 / 3
_BLUR_TAPS = 13
_STREAK_TAPS = 11
# Quantisation of JPEG (ITU T.81, annex K), luminance and chrominance.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))


class DeviceCamera:
    """Takes pictures of linear light.

    Args:
        device: Where.
        captions: float `[N, h, w]` in [0, 1]: texts to lay over pictures; none: no text is.
    """

    def __init__(self, device: torch.device, captions: Tensor | None = None) -> None:
        self._device = device
        self._captions = captions if captions is None else captions.to(device)
        self._dct = _dct_matrix().to(device)
        chroma = torch.full((8, 8), 99.0)
        chroma[:4, :4] = torch.tensor(_CHROMA, dtype=torch.float32)
        self._tables = torch.stack([torch.tensor(_LUMA, dtype=torch.float32), chroma, chroma]).to(device)
        yiq = [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
        self._yiq = torch.tensor(yiq, device=device)
        ycc = [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]]
        self._ycc = torch.tensor(ycc, device=device)

    def develop(self, light: Tensor, disparity: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pictures, each clip with one camera and one fate.

        Args:
            light: float `[B, T, 3, H, W]`, linear; H and W divisible by 16.
            disparity: float `[B, T, H, W]`, 1 / m; 0 is the sky.
            rng: Generator of the device.

        Returns:
            `[B, T, 3, H, W]` in [0, 1] and bool `[B, T, H, W]`: False under bars.
        """
        draw = _Draws(len(light), rng, self._device)
        light = light * _exposure(light, draw)
        light = light * _white_balance(draw)
        some = draw.some("vignette")
        light[some] = light[some] * _vignette(light.shape[-2:], draw.uniform(0.1, 0.7)[some])
        some = draw.some("defocus")
        light[some] = _defocus(light[some], disparity[some], draw.uniform(0.8, 4.0)[some], draw.uniform(0, 1)[some])
        some = draw.some("motion_blur")
        light[some] = _convolved(light[some], _streaks(draw.uniform(2, 9)[some], draw.uniform(0, math.pi)[some]))
        light = self._noisy(light, draw)
        some = draw.some("hue")
        light[some] = self._hue_turned(light[some], draw.uniform(-math.pi, math.pi)[some])
        image = _toned(light.clamp_min(0), draw)
        some = draw.some("small_source")
        for half in some.chunk(2):
            image[half] = _from_small(image[half], float(draw.host_uniform(0.35, 0.85)))
        some = draw.some("sharpened")
        soft = _blurred(image[some], draw.uniform(0.6, 1.6)[some])
        image[some] = image[some] + draw.uniform(0.3, 1.5)[some] * (image[some] - soft)
        some = draw.some("local_contrast")
        image[some] = _local_contrast(image[some].clamp(0, 1))
        image = image.clamp(0, 1)
        if self._captions is not None:
            some = draw.some("text")
            image[some] = self._captioned(image[some], draw, some)
        valid = torch.ones_like(disparity, dtype=torch.bool)
        some = draw.some("bars")
        valid[some] = _between_bars(valid[some], draw.uniform(0.04, 0.16)[some], draw.uniform(0, 1)[some])
        image = image * valid[:, :, None]
        some = draw.some("jpeg")
        image[some] = self._through_jpeg(image[some], draw.uniform(12, 92)[some])
        return image, valid

    def _noisy(self, light: Tensor, draw: _Draws) -> Tensor:
        """Photons come one by one: noise grows with the root of the light; reading adds its own."""
        shot, read = 10 ** draw.uniform(-3.2, -1.3), 10 ** draw.uniform(-3.5, -1.8)
        noise = draw.normal(light.shape)
        some = draw.some("blotches")  # a denoiser, or a coarse sensor, leaves them
        noise[some] = _blurred(noise[some], torch.full_like(shot[some], 0.8)) * 1.6
        return light + noise * (shot**2 * light.clamp_min(0) + read**2).sqrt()

    def _hue_turned(self, light: Tensor, angle: Tensor) -> Tensor:
        """Colours turned about grey: paint, cloth and light come in more of them than any collection of models."""
        angle = angle.view(-1)
        turn = torch.zeros(len(angle), 3, 3, device=light.device)
        turn[:, 0, 0] = 1
        turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
        turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
        matrix = torch.linalg.inv(self._yiq) @ turn @ self._yiq
        return torch.einsum("bij,btjhw->btihw", matrix, light).clamp_min(0)

    def _captioned(self, image: Tensor, draw: _Draws, some: Tensor) -> Tensor:
        """Text over the pictures; what is behind keeps its depth."""
        if self._captions is None:
            return image
        which = draw.whole(len(self._captions))[some]
        text = F.interpolate(self._captions[which][:, None], image.shape[-2:], mode="bilinear", antialias=True)
        shade = draw.uniform(0.7, 1.0)[some]
        return torch.lerp(image, shade.expand_as(image), text[:, None])

    def _through_jpeg(self, image: Tensor, quality: Tensor) -> Tensor:
        """Rounding of JPEG, without its coding: 8x8 cosines of luminance and halved chrominance."""
        batch, frames, _, height, width = image.shape
        scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50).view(-1, 1, 1, 1)
        tables = (self._tables[None] * scale).round().clamp(1, 255)
        planes = torch.einsum("ij,btjhw->btihw", self._ycc, image) * 255
        luma, chroma = planes[:, :, :1], planes[:, :, 1:]
        small = F.avg_pool2d(chroma.flatten(0, 1), 2).unflatten(0, (batch, frames))
        luma = self._rounded(luma - 128, tables[:, :1]) + 128
        small = self._rounded(small, tables[:, 1:])
        chroma = F.interpolate(small.flatten(0, 1), (height, width), mode="bilinear").unflatten(0, (batch, frames))
        back = torch.linalg.inv(self._ycc)
        return (torch.einsum("ij,btjhw->btihw", back, torch.cat([luma, chroma], dim=2)) / 255).clamp(0, 1)

    def _rounded(self, planes: Tensor, tables: Tensor) -> Tensor:
        """`[B, T, C, H, W]` after quantisation by `[B, C, 8, 8]`; sides divisible by 8."""
        blocks = planes.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8))  # [B, T, C, h, 8, w, 8]
        cosines = torch.einsum("ij,btchjwk,lk->btchwil", self._dct, blocks, self._dct)
        step = tables[:, None, :, None, None]
        cosines = (cosines / step).round() * step
        blocks = torch.einsum("ij,btchwil,lk->btchjwk", self._dct, cosines, self._dct)
        return blocks.flatten(-2).flatten(-3, -2)


class _Draws:
    """Random numbers of a batch, one for each clip, shaped to meet `[B, T, C, H, W]`."""

    def __init__(self, batch: int, rng: torch.Generator, device: torch.device) -> None:
        self._batch, self._rng, self._device = batch, rng, device
        self._host = torch.Generator().manual_seed(rng.initial_seed())

    def uniform(self, low: float, high: float) -> Tensor:
        values = torch.rand(self._batch, 1, 1, 1, 1, generator=self._rng, device=self._device)
        return low + (high - low) * values

    def gauss(self) -> Tensor:
        return torch.randn(self._batch, 1, 1, 1, 1, generator=self._rng, device=self._device)

    def normal(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(*shape, generator=self._rng, device=self._device)

    def whole(self, count: int) -> Tensor:
        return torch.randint(count, (self._batch,), generator=self._rng, device=self._device)

    def host_uniform(self, low: float, high: float) -> float:
        """One number for the whole batch, known without asking the device."""
        return low + (high - low) * float(torch.rand((), generator=self._host))

    def some(self, name: str) -> Tensor:
        """Indices of the clips that an effect touches: its share of them, rounded up or down at random."""
        count = math.floor(_SHARES[name] * self._batch + self.host_uniform(0, 1))
        return torch.randperm(self._batch, generator=self._rng, device=self._device)[:count]

    def mask(self, name: str) -> Tensor:
        """The same as bool `[B, 1, 1, 1, 1]`."""
        mask = torch.zeros(self._batch, dtype=torch.bool, device=self._device)
        mask[self.some(name)] = True
        return mask.view(-1, 1, 1, 1, 1)


def _exposure(light: Tensor, draw: _Draws) -> Tensor:
    """Gains: metered on all or a part of the first frame, then off by some stops, but most of it stays visible."""
    grey = light[:, 0].mean(dim=1)[:, ::4, ::4]
    height, width = grey.shape[1:]
    rows = torch.linspace(0, 1, height, device=light.device)[None, :, None]
    columns = torch.linspace(0, 1, width, device=light.device)[None, None]
    top, left = (draw.uniform(0, 2 / 3).view(-1, 1, 1) for _ in range(2))
    spot = (rows >= top) & (rows <= top + 1 / 3) & (columns >= left) & (columns <= left + 1 / 3)
    metered = (spot | ~draw.mask("spot_meter").view(-1, 1, 1)).float()
    mean = ((grey + 1e-4).log() * metered).sum((1, 2)) / metered.sum((1, 2)).clamp_min(1)
    stops = torch.where(draw.mask("far_off"), draw.uniform(-_FAR_STOPS, _FAR_STOPS), draw.gauss() * _STOPS).view(-1)
    gain = 0.18 / mean.exp().clamp_min(1e-6) * 2.0**stops
    bright, dark = grey.flatten(1).quantile(torch.tensor([1 - _CLIPPED, _CLIPPED], device=light.device), dim=1)
    brightest = 1.0 / bright.clamp_min(1e-6)
    gain = torch.minimum(gain, brightest)
    gain = torch.maximum(gain, torch.minimum(0.02 / dark.clamp_min(1e-6), brightest))
    return gain.view(-1, 1, 1, 1, 1)


def _white_balance(draw: _Draws) -> Tensor:
    """Gains `[B, 1, 3, 1, 1]` of a balance that is a little, and now and then very, wrong."""
    wrong = torch.where(draw.uniform(0, 1) < 0.7, 0.06, 0.22)
    warm, green = draw.gauss() * wrong, draw.gauss() * wrong / 3
    return torch.cat([warm, green, -warm], dim=2).exp()


def _vignette(size: Sequence[int], strength: Tensor) -> Tensor:
    y, x = (torch.linspace(-1, 1, side, device=strength.device) for side in size)
    return 1 / (1 + strength * (y[:, None] ** 2 + x**2) / 2) ** 2


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, each clip with its own sigma in pixels, `[B, 1, 1, 1, 1]`."""
    reach = torch.arange(_BLUR_TAPS, device=images.device) - _BLUR_TAPS // 2
    taps = torch.exp(-0.5 * (reach / sigma.view(-1, 1).clamp_min(1e-3)) ** 2)
    taps = taps / taps.sum(1, keepdim=True)
    images = _convolved(images, taps[:, :, None])
    return _convolved(images, taps[:, None])


def _convolved(images: Tensor, kernels: Tensor) -> Tensor:
    """`[B, T, C, H, W]`, each clip with its own kernel `[B, k, l]`; borders are repeated."""
    batch, frames, channels, height, width = images.shape
    if batch == 0:
        return images
    kernels = kernels.to(images.dtype)
    planes = images.permute(1, 2, 0, 3, 4).reshape(frames * channels, batch, height, width)
    rows, columns = kernels.shape[1] // 2, kernels.shape[2] // 2
    planes = F.pad(planes, (columns, columns, rows, rows), mode="replicate")
    out = F.conv2d(planes, kernels[:, None], groups=batch)
    return out.view(frames, channels, batch, height, width).permute(2, 0, 1, 3, 4)


def _defocus(light: Tensor, disparity: Tensor, strongest: Tensor, place: Tensor) -> Tensor:
    """Blur that grows with the distance in disparity from a plane in focus; at a few clips of the whole picture."""
    if len(light) == 0:
        return light
    flat = disparity[:, 0].flatten(1)
    focus = flat.gather(1, (place.view(-1, 1) * (flat.shape[1] - 1)).long())
    spread = (disparity - focus[:, :, None, None]).abs()
    most = spread[:, 0, ::4, ::4].flatten(1).quantile(0.9, dim=1).view(-1, 1, 1, 1) + 1e-6
    amount = (spread / most).clamp_max(1)[:, :, None]
    amount = torch.where((place * 1000) % 1 < 0.3, 0.5, amount)  # out of focus altogether
    half, full = _blurred(light, strongest * 0.3), _blurred(light, strongest * 0.6)
    first, second = (amount * 2).clamp(0, 1), (amount * 2 - 1).clamp(0, 1)
    return torch.lerp(torch.lerp(light, half, first), full, second)


def _streaks(length: Tensor, angle: Tensor) -> Tensor:
    """Kernels `[B, k, k]` of straight motions while the shutter is open."""
    reach = torch.arange(_STREAK_TAPS, device=length.device, dtype=torch.float32) - _STREAK_TAPS // 2
    y, x = torch.meshgrid(reach, reach, indexing="ij")
    length, angle = length.view(-1, 1, 1), angle.view(-1, 1, 1)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    beyond = (along.abs() - length / 2).clamp_min(0)
    kernels = (1 - torch.hypot(beyond, across)).clamp_min(0)
    return kernels / kernels.sum((1, 2), keepdim=True).clamp_min(1e-6)


def _toned(light: Tensor, draw: _Draws) -> Tensor:
    """From light to code values: a film-like shoulder or a hard clip, gamma, contrast, saturation, haze."""
    white = draw.uniform(1.5, 8)
    film = light * (1 + light / white**2) / (1 + light) * draw.uniform(1.0, 1.5)
    light = torch.where(draw.mask("film"), film, light)
    image = light.clamp(1e-6, 1) ** (1 / draw.uniform(1.8, 2.6))
    image = image + draw.uniform(-0.3, 0.7) * (image * image * (3 - 2 * image) - image)
    grey = image.mean(dim=2, keepdim=True)
    image = grey + (image - grey) * draw.uniform(0.5, 1.5)
    lift = draw.uniform(0, 0.12) * draw.mask("lifted")
    image = lift + image * (1 - lift)
    return torch.where(draw.mask("grey"), image.mean(dim=2, keepdim=True), image)


def _from_small(image: Tensor, scale: float) -> Tensor:
    """As if it had been stored smaller and enlarged."""
    if len(image) == 0:
        return image
    height, width = image.shape[-2:]
    size = max(8, round(height * scale)), max(8, round(width * scale))
    small = F.interpolate(image.flatten(0, 1), size, mode="bilinear", antialias=True)
    mode = "bicubic" if scale > 0.6 else "bilinear"
    return F.interpolate(small, (height, width), mode=mode).view_as(image)


def _local_contrast(image: Tensor) -> Tensor:
    """Contrast stretched by the neighbourhood, as editing programs offer it."""
    if len(image) == 0:
        return image
    grey = image.mean(dim=2).flatten(0, 1)[:, None]
    side = max(3, min(grey.shape[-2:]) // 8 * 2 + 1)
    mean = F.avg_pool2d(grey, side, 1, side // 2, count_include_pad=False)
    spread = (F.avg_pool2d(grey**2, side, 1, side // 2, count_include_pad=False) - mean**2).clamp_min(1e-4).sqrt()
    wanted = 0.5 + (grey - mean) / spread * 0.2
    gain = (0.5 * wanted + 0.5 * grey).clamp(0, 1) / grey.clamp_min(0.02)
    return image * gain.view(*image.shape[:2], 1, *image.shape[-2:])


def _between_bars(valid: Tensor, share: Tensor, way: Tensor) -> Tensor:
    """False under black bars above and below, or at the sides."""
    height, width = valid.shape[-2:]
    y = torch.linspace(0, 1, height, device=valid.device)[:, None]
    x = torch.linspace(0, 1, width, device=valid.device)[None]
    share, upright = share[:, :, 0], way[:, :, 0] < 0.7
    along = torch.where(upright, y, x)
    return valid & (along >= share) & (along <= 1 - share)


def _dct_matrix() -> Tensor:
    """The orthonormal cosine transform of eight values."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    matrix = torch.cos((2 * columns + 1) * rows * math.pi / 16) / 2
    matrix[0] = math.sqrt(1 / 8)
    return matrix


def captions(count: int, seed: int, height: int = 160, width: int = 288) -> Tensor:
    """Pictures of random text for `DeviceCamera`, float `[count, height, width]` in [0, 1]."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(seed)
    drawn = np.zeros((count, height, width), dtype=np.uint8)
    letters = np.r_[65:91, 97:123, 32:33, 48:58]
    for picture in drawn:
        words = "".join(chr(int(letter)) for letter in rng.choice(letters, int(rng.integers(3, 28))))
        place = int(rng.uniform(0, 0.5) * width), int(rng.choice([0.1, 0.88, 0.94]) * height)
        cv2.putText(picture, words, place, int(rng.integers(0, 3)), rng.uniform(0.3, 0.7), (255,), 1, cv2.LINE_AA)
    return torch.from_numpy(drawn.astype(np.float32) / 255)
