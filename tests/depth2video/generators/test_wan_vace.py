import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from depth2video.generators.interface import Request
from depth2video.generators.loading import find_parts
from depth2video.generators.wan_vace import WanVaceGenerator, load_wan_vace

from tests.depth2video.conftest import moving_control, tiny_wan_vace

WORDS = Request(prompt="a red fox", steps=2, seed=3)
HEIGHT, WIDTH = 32, 48
COUNT = 22


def _load(folder: Path, window: int = 9, stride: int = 4) -> WanVaceGenerator:
    return load_wan_vace(folder, window=window, stride=stride, device=torch.device("cpu"), dtype=torch.float32)


def _run(generator: WanVaceGenerator, control: list[np.ndarray], request: Request = WORDS) -> np.ndarray:
    return np.concatenate([piece.frames for piece in generator.generate(iter(control), request, state=None)])


@pytest.fixture(scope="module")
def generator(wan_folder: Path) -> WanVaceGenerator:
    return _load(wan_folder)


@pytest.fixture(scope="module")
def control() -> list[np.ndarray]:
    return moving_control(COUNT, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def whole(generator: WanVaceGenerator, control: list[np.ndarray]) -> np.ndarray:
    return _run(generator, control)


@pytest.mark.parametrize("count", [1, 2, 5, 8, 9])
def test_any_number_of_frames(generator: WanVaceGenerator, control: list[np.ndarray], count: int) -> None:
    """4 n + 1 is Wan's rule, padded and trimmed here."""
    frames = _run(generator, control[:count])
    assert frames.shape == (count, HEIGHT, WIDTH, 3) and frames.dtype == np.uint8


def test_words_depth_reference_and_seed_matter(generator: WanVaceGenerator, control: list[np.ndarray]) -> None:
    plain = _run(generator, control[:9])
    np.testing.assert_array_equal(plain, _run(generator, control[:9]))
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    for other in (
        Request(prompt="a stone city", steps=2, seed=3),
        Request(prompt="a red fox", negative_prompt="blurry", steps=2, seed=3),
        Request(prompt="a red fox", steps=2, seed=4),
        Request(prompt="a red fox", steps=2, seed=3, control_scale=0.3),
        Request(prompt="a red fox", steps=2, seed=3, control_start=0.5),
        Request(prompt="a red fox", steps=2, seed=3, control_end=0.5),
        Request(prompt="a red fox", steps=2, seed=3, guidance=1.0),
        Request(prompt="a red fox", steps=2, seed=3, image=image),
    ):
        made = _run(generator, control[:9], other)
        assert made.shape == plain.shape and (made != plain).any(), other
    upside_down = [np.ascontiguousarray(frame[::-1]) for frame in control[:9]]
    assert (_run(generator, upside_down) != plain).any()
    nothing = Request(prompt="a red fox", steps=2, seed=3, control_scale=0.0)
    np.testing.assert_array_equal(_run(generator, upside_down, nothing), _run(generator, control[:9], nothing))


def test_a_window_cut_out_of_a_longer_clip_is_the_same(
    generator: WanVaceGenerator, control: list[np.ndarray], whole: np.ndarray
) -> None:
    """Exactly, for the frames that the next window does not share; those run over into it."""
    one = _run(generator, control[: generator.window])
    np.testing.assert_array_equal(one[: generator.stride], whole[: generator.stride])


def test_windows_share_noise_and_frames(generator: WanVaceGenerator) -> None:
    """A latent of the second window has the noise that it had in the first; only its first one is of one frame."""
    first = generator._noise(3, 0, 9, HEIGHT, WIDTH, False)
    second = generator._noise(3, 4, 9, HEIGHT, WIDTH, False)
    torch.testing.assert_close(second[:, :, :2], first[:, :, 1:], rtol=0, atol=0)
    with_reference = generator._noise(3, 0, 9, HEIGHT, WIDTH, True)
    torch.testing.assert_close(with_reference[:, :, 1:], first, rtol=0, atol=0)


def test_frames_of_the_window_before_decide_how_the_next_begins(
    generator: WanVaceGenerator, control: list[np.ndarray]
) -> None:
    pieces = list(generator.generate(iter(control[:13]), WORDS, state=None))
    other = {**pieces[0].state, "frames": 255 - pieces[0].state["frames"]}
    changed = next(generator.generate(iter(control[4:13]), WORDS, state=other)).frames
    held = pieces[0].state["frames"].numpy().astype(float)
    made = pieces[1].frames.astype(float)
    assert (changed != pieces[1].frames).any()
    # The first shared frame is five sixths the earlier rendition.
    assert np.abs(made[0] - held[0]).mean() <= np.abs(255 - held).mean() / 6 + 255 / 6


@pytest.mark.parametrize("pieces_done", [1, 3])
def test_another_process_goes_on_to_the_same_frames(
    wan_folder: Path, control: list[np.ndarray], whole: np.ndarray, pieces_done: int
) -> None:
    pieces = _load(wan_folder).generate(iter(control), WORDS, state=None)
    first = [next(pieces) for _ in range(pieces_done)]
    done = sum(len(piece.frames) for piece in first)
    rest = list(_load(wan_folder).generate(iter(control[done:]), WORDS, state=first[-1].state))
    np.testing.assert_array_equal(np.concatenate([piece.frames for piece in [*first, *rest]]), whole)


def test_the_flow_shift_follows_the_size(generator: WanVaceGenerator) -> None:
    generator._set_shift(832 * 480)
    assert generator.pipe.scheduler.config["flow_shift"] == 3.0
    generator._set_shift(1280 * 720)
    assert generator.pipe.scheduler.config["flow_shift"] == 5.0


def test_the_two_stages_of_wan_2_2(tmp_path: Path, control: list[np.ndarray], whole: np.ndarray) -> None:
    generator = _load(tiny_wan_vace(tmp_path / "vace", two_stages=True))
    assert generator.pipe.config["boundary_ratio"] == 0.875 and generator.pipe.transformer_2 is not None
    made = _run(generator, control[:9], Request(prompt="a red fox", steps=4, seed=3))
    alone = _load(tiny_wan_vace(tmp_path / "one"))
    assert (made != _run(alone, control[:9], Request(prompt="a red fox", steps=4, seed=3))).any()


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path, wan_folder: Path) -> None:
    folder = Path(shutil.copytree(wan_folder, tmp_path / "vace"))
    (folder / "model_index.json").unlink()
    with pytest.raises(ValueError, match="--base: model_index.json is missing in .*/vace"):
        find_parts("wan-vace", {"base": str(folder)})
