"""From noise to depth latents, one window at a time.

Holds EDM's preconditioning in SVD's v-parametrisation, the noise levels, one sampler and one small function per
strategy. Nothing here knows of files, devices or progress. Facts: arXiv 2206.00364 (EDM), 2311.15127 (SVD), 2406.01493
(ChronoDepth), 2409.02095 (DepthCrafter), and the two released codes where they differ from the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from depth_engine.models.svd.spec import Sampler, Strategy

# (scaled noisy latents [T, C, h, w], c_noise [T]) -> network output F [T, C, h, w]; condition and embedding are bound.
Network = Callable[[Tensor, Tensor], Tensor]
# (position in the window, draw) -> standard normals [C, h, w]
WindowNoise = Callable[[int, int], Tensor]


class Preconditioning(NamedTuple):
    """EDM's four scalings by their names in the paper (arXiv 2206.00364, table 1)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor

    def scale(self, noisy: Tensor) -> Tensor:
        """What the network is given of noisy latents `[..., C, h, w]`, a noise level for each `...`."""
        return self.c_in[..., None, None, None] * noisy

    def denoise(self, noisy: Tensor, output: Tensor) -> Tensor:
        """Denoised latents `[..., C, h, w]` by the network's output for them."""
        return self.c_skip[..., None, None, None] * noisy + self.c_out[..., None, None, None] * output


def precondition(sigma: Tensor) -> Preconditioning:
    """Scalings of SVD's v-parametrisation: denoised = c_skip x + c_out F(c_in x; c_noise).

    Args:
        sigma: Noise levels, any shape.
    """
    spread = (sigma**2 + 1).sqrt()
    return Preconditioning(c_skip=1 / spread**2, c_out=-sigma / spread, c_in=1 / spread, c_noise=sigma.log() / 4)


def unet_input(scaled: Tensor, condition: Tensor, *, condition_first: bool) -> Tensor:
    """Scaled noisy latents and condition latents, both `[..., C, h, w]`, on the channels in a checkpoint's order."""
    return torch.cat([condition, scaled] if condition_first else [scaled, condition], dim=-3)


@dataclass(frozen=True)
class WindowTask:
    """What a strategy needs to denoise one window of T frames, `context` of them known.

    Attributes:
        network: The UNet with condition and embeddings of the window bound.
        context: Denoised latents of the context frames, `[k, C, h, w]`.
        frames: T, context included.
        noise: Standard normals by (position in the window, draw).
        sigmas: Falling noise levels, closed by 0.
        initial_scale: What the first noise is multiplied by: sqrt(sigma_max^2 + 1) for SVD's schedule; 0 for a
            checkpoint that starts from zero.
        sampler: `euler`, or `reference` for the update of ChronoDepth's release.
        context_c_noise: c_noise that flags clean context frames.
    """

    network: Network
    context: Tensor
    frames: int
    noise: WindowNoise
    sigmas: Sequence[float]
    initial_scale: float
    sampler: Sampler
    context_c_noise: float


def denoise_window(task: WindowTask, strategy: Strategy) -> Tensor:
    """Denoise a window by the strategy's name.

    Returns:
        Latents of all T frames, `[T, C, h, w]`. For `context`, `replacement` and `independent` the context entries are
        the known ones; for `crossfade` they are blended.
    """
    if not len(task.context) and strategy != "crossfade":
        return denoise_independent(task)
    return _DENOISERS[strategy](task)


def denoise_independent(task: WindowTask) -> Tensor:
    """Sample the whole window from noise; earlier predictions are only kept, not used (the baseline that flickers)."""
    start = _initial_noise(task, range(task.frames))

    def velocity(scaled: Tensor, c_noise: Tensor) -> Tensor:
        return task.network(scaled, c_noise.expand(task.frames))

    return _keep_context(task, _sample(start, velocity, task))


def denoise_replacement(task: WindowTask) -> Tensor:
    """Before each step put the context back, re-noised to that step's level (arXiv 2406.01493, "replacement trick")."""
    known = len(task.context)

    def renoise(state: Tensor, step: int, sigma: float) -> Tensor:
        noise = torch.stack([task.noise(position, step + 1) for position in range(known)])
        # A checkpoint that starts from zero was never shown noise.
        spread = sigma if task.initial_scale else 0.0
        return torch.cat([task.context + spread * noise.to(state), state[known:]])

    def velocity(scaled: Tensor, c_noise: Tensor) -> Tensor:
        return task.network(scaled, c_noise.expand(task.frames))

    start = _initial_noise(task, range(known, task.frames))
    start = torch.cat([task.context.to(start), start])
    return _keep_context(task, _sample(start, velocity, task, before_step=renoise))


def denoise_context(task: WindowTask) -> Tensor:
    """Feed the context clean, flagged by its own level; denoise the new frames alone (arXiv 2406.01493, section 3)."""
    known = len(task.context)
    start = _initial_noise(task, range(known, task.frames))
    context = task.context.to(start)

    def velocity(scaled: Tensor, c_noise: Tensor) -> Tensor:
        flags = torch.cat([c_noise.new_full((known,), task.context_c_noise), c_noise.expand(len(scaled))])
        return task.network(torch.cat([context, scaled]), flags)[known:]

    return torch.cat([context, _sample(start, velocity, task)])


def denoise_crossfade(task: WindowTask) -> Tensor:
    """Start the overlap from the previous latents plus noise, then blend linearly (arXiv 2409.02095, section 3.3)."""
    known = len(task.context)
    start = _initial_noise(task, range(task.frames))
    context = task.context.to(start)

    def begin_from_context(state: Tensor, step: int, sigma: float) -> Tensor:
        if step or not known:
            return state
        noise = torch.stack([task.noise(position, 0) for position in range(known)])
        spread = sigma if task.initial_scale else 0.0
        return torch.cat([context + spread * noise.to(state), state[known:]])

    def velocity(scaled: Tensor, c_noise: Tensor) -> Tensor:
        return task.network(scaled, c_noise.expand(task.frames))

    latents = _sample(start, velocity, task, before_step=begin_from_context)
    weight = torch.linspace(0, 1, known, device=start.device)[:, None, None, None]
    return torch.cat([latents[:known] * weight + context * (1 - weight), latents[known:]])


_DENOISERS: dict[Strategy, Callable[[WindowTask], Tensor]] = {
    "context": denoise_context,
    "replacement": denoise_replacement,
    "independent": denoise_independent,
    "crossfade": denoise_crossfade,
}


def _initial_noise(task: WindowTask, positions: Sequence[int]) -> Tensor:
    """First noise of the frames at these places in the window, float32."""
    if not task.initial_scale:  # a checkpoint that starts from zero: nothing to draw
        return torch.zeros(len(positions), *task.context.shape[1:], device=task.context.device)
    noise = torch.stack([task.noise(position, 0) for position in positions]).float().to(task.context.device)
    return noise * task.initial_scale


def _keep_context(task: WindowTask, latents: Tensor) -> Tensor:
    """Context frames keep their first prediction."""
    return torch.cat([task.context.to(latents), latents[len(task.context) :]])


def _sample(
    start: Tensor,
    velocity: Callable[[Tensor, Tensor], Tensor],
    task: WindowTask,
    before_step: Callable[[Tensor, int, float], Tensor] | None = None,
) -> Tensor:
    """Euler steps down the noise levels (arXiv 2206.00364, algorithm 1, in SVD's v-parametrisation).

    The `reference` sampler does what ChronoDepth's release does: the scaled model input replaces the state, so each
    step starts from it. The published numbers came from that code.

    Args:
        start: State at the first noise level, `[N, C, h, w]`, float32.
        velocity: Network output for a scaled state and c_noise `[1]`.
        task: Gives the noise levels and the sampler.
        before_step: Changes the state before a step: (state, step, sigma) -> state.
    """
    state = start
    for step, (sigma, next_sigma) in enumerate(zip(task.sigmas, task.sigmas[1:], strict=False)):
        if before_step is not None:
            state = before_step(state, step, sigma)
        scalings = precondition(torch.tensor([sigma], dtype=torch.float32, device=state.device))
        scaled = scalings.scale(state)
        if task.sampler == "reference":
            state = scaled
        denoised = scalings.denoise(state, velocity(scaled, scalings.c_noise).float())
        state = state + (state - denoised) / sigma * (next_sigma - sigma)
    return state
