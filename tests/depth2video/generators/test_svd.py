"""SVD with the depth ControlNet, end to end on a tiny checkpoint of the real layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from depth2video.generators.controlnet import DepthControlNet
from depth2video.generators.interface import Request
from depth2video.generators.svd import SvdGenerator, load_svd

CPU = torch.device("cpu")
HEIGHT = WIDTH = 64


@pytest.fixture(scope="module")
def folders(svd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from depth2video.generators.controlnet import ControlledUNet

    from depth_engine.models.loading import load_model

    unet = load_model(ControlledUNet, svd_folder / "unet", torch.float32, CPU)
    torch.manual_seed(1)
    controlnet = DepthControlNet.from_unet(unet, (4, 6, 8, 12)).requires_grad_(False)
    for part in (controlnet.controlnet_down_blocks, controlnet.controlnet_cond_embedding.conv_out):
        for parameter in part.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    folder = tmp_path_factory.mktemp("controlnet")
    controlnet.save_pretrained(folder / "controlnet")
    return {"base": svd_folder, "controlnet": folder}


def load(folders: dict[str, Path], window: int = 4, stride: int = 3, **changes) -> SvdGenerator:
    options = {"device": CPU, "dtype": torch.float32, "offload": "none", **changes}
    return load_svd(folders, window=window, stride=stride, **options)


def control(count: int, first: int = 0) -> Iterator[np.ndarray]:
    for index in range(first, count):
        grey = np.full((HEIGHT, WIDTH), 20, np.uint8)
        grey[20:40, 4 * index : 4 * index + 24] = 230
        yield np.repeat(grey[..., None], 3, 2)


REQUEST = Request(
    image=np.random.default_rng(0).integers(60, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8), steps=2, guidance=2.0
)


def clip(generator: SvdGenerator, count: int, request: Request = REQUEST) -> np.ndarray:
    pieces = list(generator.generate(control(count), request, state=None))
    assert all(len(piece.frames) <= generator.window for piece in pieces)
    return np.concatenate([piece.frames for piece in pieces])


def test_a_long_clip_is_made_window_by_window(folders: dict[str, Path]) -> None:
    frames = clip(load(folders), 9)
    assert frames.shape == (9, HEIGHT, WIDTH, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames, clip(load(folders), 9)), "the same seed gives the same clip"
    assert not np.array_equal(frames, clip(load(folders), 9, replace(REQUEST, seed=1)))


def test_the_first_window_does_not_depend_on_what_follows(folders: dict[str, Path]) -> None:
    assert np.array_equal(clip(load(folders), 4), clip(load(folders), 9)[:4])


def test_a_later_process_goes_on_from_the_state(folders: dict[str, Path]) -> None:
    pieces = list(load(folders).generate(control(9), REQUEST, state=None))
    for cut in (1, 2):
        done = sum(len(piece.frames) for piece in pieces[:cut])
        state = {name: value.clone() for name, value in pieces[cut - 1].state.items()}
        rest = list(load(folders).generate(control(9, done), REQUEST, state=state))
        assert np.array_equal(
            np.concatenate([piece.frames for piece in rest]), np.concatenate([piece.frames for piece in pieces[cut:]])
        )


def test_control_steers_and_can_be_switched_off(folders: dict[str, Path]) -> None:
    generator = load(folders)
    steered = clip(generator, 4)
    off = clip(generator, 4, replace(REQUEST, control_scale=0.0))
    assert np.abs(steered.astype(int) - off).mean() > 0.5
    none_of_two_steps = clip(generator, 4, replace(REQUEST, control_start=0.6, control_end=0.9))
    assert np.array_equal(none_of_two_steps, off)
    first_step = clip(generator, 4, replace(REQUEST, control_end=0.5))
    assert not np.array_equal(first_step, off) and not np.array_equal(first_step, steered)


def test_a_new_controlnet_leaves_svd_as_it_is(folders: dict[str, Path], tmp_path: Path) -> None:
    from depth2video.generators.controlnet import ControlledUNet

    from depth_engine.models.loading import load_model

    unet = load_model(ControlledUNet, folders["base"] / "unet", torch.float32, CPU)
    DepthControlNet.from_unet(unet, (4, 6, 8, 12)).save_pretrained(tmp_path)
    new = load({**folders, "controlnet": tmp_path})
    assert np.array_equal(clip(new, 4), clip(new, 4, replace(REQUEST, control_scale=0.0)))


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloading_changes_nothing(folders: dict[str, Path], offload: str) -> None:
    assert np.array_equal(clip(load(folders, offload=offload), 4), clip(load(folders), 4))


def test_guidance_of_one_is_the_conditional_network(folders: dict[str, Path]) -> None:
    generator = load(folders)
    plain = clip(generator, 4, replace(REQUEST, guidance=1.0))
    assert np.abs(plain.astype(int) - clip(generator, 4)).mean() > 0.1


def test_it_is_told_the_frame_rate_less_one_and_the_motion(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from depth2video.generators.controlnet import ControlledUNet

    told, forward = [], ControlledUNet.forward

    def seen(self: ControlledUNet, sample, timestep, embedding, ids, *rest) -> torch.Tensor:
        told.append(ids[0].tolist())
        return forward(self, sample, timestep, embedding, ids, *rest)

    generator = load(folders)
    made = [clip(generator, 4, replace(REQUEST, fps_id=24, motion=127)), clip(generator, 4)]
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != clip(generator, 4, replace(REQUEST, fps_id=12))).any()
    assert (made[0] != clip(generator, 4, replace(REQUEST, motion=20))).any()
    monkeypatch.setattr(ControlledUNet, "forward", seen)
    clip(generator, 4, replace(REQUEST, fps_id=12, motion=20))
    assert told[0] == pytest.approx([11, 20, 0.02])


def test_the_public_checkpoint_keeps_its_behaviour(folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folders["controlnet"], tmp_path / "public")
    config = tmp_path / "public" / "controlnet" / "config.json"
    config.write_text(config.read_text().replace('"DepthControlNet"', '"ControlNetSDVModel"'))
    public = clip(load({**folders, "controlnet": tmp_path / "public"}), 4)
    assert not np.array_equal(public, clip(load(folders), 4))


def test_a_first_frame_is_needed(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="--image: is missing"):
        next(load(folders).generate(control(4), Request(), state=None))
