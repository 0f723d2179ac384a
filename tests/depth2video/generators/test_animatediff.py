from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from depth2video.generators.animatediff import (
    CONTEXT,
    CONTEXT_STRIDE,
    AnimateDiffGenerator,
    load_animatediff,
    shuffled_frame,
)
from depth2video.generators.interface import Request

from depth_engine.runs.pieces import Piece
from tests.depth2video.conftest import moving_control

WORDS = Request(prompt="a red fox", steps=2, seed=3)
HEIGHT, WIDTH = 32, 48


def _load(folders: dict[str, Path], window: int = 20, stride: int = 14, **changes) -> AnimateDiffGenerator:
    parts = {name: folder for name, folder in folders.items() if name != "ip_adapter"}
    cpu = torch.device("cpu")
    return load_animatediff(parts, window=window, stride=stride, device=cpu, dtype=torch.float32, **changes)


@pytest.fixture(scope="module")
def generator(animatediff_folders: dict[str, Path]) -> AnimateDiffGenerator:
    return _load(animatediff_folders)


@pytest.fixture(scope="module")
def video_to_video(animatediff_folders: dict[str, Path]) -> AnimateDiffGenerator:
    return _load(animatediff_folders, video_to_video=True)


def _frames(pieces: Iterator[Piece]) -> np.ndarray:
    return np.concatenate([piece.frames for piece in pieces])


def _run(generator: AnimateDiffGenerator, control: list[np.ndarray], request: Request = WORDS) -> np.ndarray:
    return _frames(generator.generate(iter(control), request, state=None))


@pytest.fixture(scope="module")
def control() -> list[np.ndarray]:
    return moving_control(40, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def whole(generator: AnimateDiffGenerator, control: list[np.ndarray]) -> np.ndarray:
    return _run(generator, control)


def test_a_clip_of_any_length(generator: AnimateDiffGenerator, control: list[np.ndarray], whole: np.ndarray) -> None:
    assert whole.shape == (40, HEIGHT, WIDTH, 3) and whole.dtype == np.uint8
    assert whole.std() > 5, "there is something to compare"
    assert len(_run(generator, control[:3])) == 3, "shorter than FreeNoise's context"


def test_words_depth_and_seed_matter(generator: AnimateDiffGenerator, control: list[np.ndarray]) -> None:
    plain = _run(generator, control[:16])
    np.testing.assert_array_equal(plain, _run(generator, control[:16]))
    for other in (
        Request(prompt="a stone city", steps=2, seed=3),
        Request(prompt="a red fox", negative_prompt="blurry", steps=2, seed=3),
        Request(prompt="a red fox", steps=2, seed=4),
        Request(prompt="a red fox", steps=2, seed=3, control_scale=0.3),
        Request(prompt="a red fox", steps=2, seed=3, control_start=0.5),
        Request(prompt="a red fox", steps=2, seed=3, guidance=1.5),
    ):
        assert (_run(generator, control[:16], other) != plain).any(), other
    upside_down = [np.ascontiguousarray(frame[::-1]) for frame in control[:16]]
    assert (_run(generator, upside_down) != plain).any()
    nothing = Request(prompt="a red fox", steps=2, seed=3, control_scale=0.0)
    np.testing.assert_array_equal(_run(generator, upside_down, nothing), _run(generator, control[:16], nothing))


def test_a_window_cut_out_of_a_longer_clip_is_the_same(
    generator: AnimateDiffGenerator, control: list[np.ndarray], whole: np.ndarray
) -> None:
    """Exactly, for the frames that the next window does not share; those are drawn towards it."""
    one = _run(generator, control[: generator.window])
    np.testing.assert_array_equal(one[: generator.stride], whole[: generator.stride])
    shared = slice(generator.stride, generator.window)
    assert (one[shared] != whole[shared]).any()


def test_the_seam_is_no_greater_than_other_changes(
    animatediff_folders: dict[str, Path], control: list[np.ndarray], whole: np.ndarray
) -> None:
    """Where the second window begins, frames change no more than elsewhere; windows without a shared part do jump."""

    def change(frames: np.ndarray) -> np.ndarray:
        return np.abs(np.diff(frames.astype(float), axis=0)).mean(axis=(1, 2, 3))

    still = [control[0]] * 40
    shared = _run(_load(animatediff_folders, window=20, stride=12), still)
    apart = _run(_load(animatediff_folders, window=20, stride=20), still)
    assert change(shared)[11] < change(apart)[19]
    assert change(shared)[11] <= np.percentile(change(shared), 95)


@pytest.mark.parametrize("pieces_done", [1, 2])
def test_another_process_goes_on_to_the_same_frames(
    animatediff_folders: dict[str, Path], control: list[np.ndarray], whole: np.ndarray, pieces_done: int
) -> None:
    generator = _load(animatediff_folders)
    pieces = generator.generate(iter(control), WORDS, state=None)
    first = [next(pieces) for _ in range(pieces_done)]
    done = sum(len(piece.frames) for piece in first)
    rest = list(_load(animatediff_folders).generate(iter(control[done:]), WORDS, state=first[-1].state))
    made = np.concatenate([piece.frames for piece in [*first, *rest]])
    np.testing.assert_array_equal(made, whole)


def test_video_to_video_keeps_what_strength_leaves(
    video_to_video: AnimateDiffGenerator, control: list[np.ndarray]
) -> None:
    # A random VAE does not give a picture back; what stays of two sources shows in how far apart the results are.
    sources = [[np.full((HEIGHT, WIDTH, 3), level, np.uint8)] * 24 for level in (20, 230)]

    def apart(strength: float) -> float:
        made = [
            _run(
                video_to_video,
                control[:24],
                Request(prompt="a red fox", steps=10, seed=3, strength=strength, video=iter(source)),
            )
            for source in sources
        ]
        assert made[0].shape == (24, HEIGHT, WIDTH, 3)
        return float(np.abs(made[0].astype(float) - made[1]).mean())

    weak, strong = apart(0.1), apart(1.0)
    assert weak > 2 * strong
    with pytest.raises(ValueError, match="video: is missing"):
        _run(video_to_video, control[:2], Request(prompt="a", strength=0.5))


def test_video_to_video_goes_on_too(animatediff_folders: dict[str, Path], control: list[np.ndarray]) -> None:
    source = [frame // 2 for frame in control]

    def request(first: int) -> Request:
        return Request(prompt="a red fox", steps=2, strength=0.5, video=iter(source[first:]))

    generator = _load(animatediff_folders, video_to_video=True)
    whole = list(generator.generate(iter(control), request(0), state=None))
    rest = list(generator.generate(iter(control[14:]), request(14), state=whole[0].state))
    np.testing.assert_array_equal(_frames(iter(rest)), _frames(iter(whole[1:])))


def test_an_image_gives_the_style(animatediff_folders: dict[str, Path], control: list[np.ndarray]) -> None:
    cpu = torch.device("cpu")
    generator = load_animatediff(animatediff_folders, window=16, stride=12, device=cpu, dtype=torch.float32)
    made = [
        _run(
            generator,
            control[:16],
            Request(prompt="a red fox", steps=2, image=np.full((HEIGHT, WIDTH, 3), level, np.uint8)),
        )
        for level in (30, 220)
    ]
    assert (made[0] != made[1]).any()
    with pytest.raises(ValueError, match="image: is missing; an IP-Adapter was loaded for it"):
        _run(generator, control[:2])
    with pytest.raises(ValueError, match="image: is of no use; no IP-Adapter was loaded"):
        _run(_load(animatediff_folders), control[:2], Request(prompt="a", image=control[0]))


def test_later_noise_is_the_first_context_s_shuffled() -> None:
    """FreeNoise's pattern: a group of frames takes the noise of the same group one context before, reordered."""
    order = [shuffled_frame(index, CONTEXT, seed=1) for index in range(64)]
    assert order[:CONTEXT] == list(range(CONTEXT))
    for start in range(0, 64, CONTEXT_STRIDE):
        group = start % CONTEXT
        assert sorted(order[start : start + CONTEXT_STRIDE]) == list(range(group, group + CONTEXT_STRIDE))
    assert order[CONTEXT:] != [index % CONTEXT for index in range(CONTEXT, 64)]
    assert order != [shuffled_frame(index, CONTEXT, seed=2) for index in range(64)]


def test_weights_that_are_not_whole_are_refused(animatediff_folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "controlnet"
    broken.mkdir()
    for path in animatediff_folders["controlnet"].iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = broken / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors.pop("conv_in.weight")
    save_file(tensors, weights)
    with pytest.raises(ValueError, match="conv_in.weight is missing"):
        _load({**animatediff_folders, "controlnet": broken})
    weights.unlink()
    (broken / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(ValueError, match="is a pickle, which can run code when read"):
        _load({**animatediff_folders, "controlnet": broken})
