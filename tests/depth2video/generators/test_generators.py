import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from depth2video.generators.catalogue import GENERATORS, SMALL_FOLDER, describe_generators
from depth2video.generators.interface import Offload, Request
from depth2video.generators.loading import find_parts, load_generator, weights_identity
from depth2video.plan.choices import (
    check_device,
    check_request,
    choose_motion,
    choose_size,
    choose_windows,
    find_generator,
)

from tests.depth2video.conftest import moving_control
from tests.variants import model_files, rename_fp16, shard

WORDS = Request(prompt="a red fox")


def _without_image(folders: dict[str, Path]) -> dict[str, Path]:
    return {name: folder for name, folder in folders.items() if name != "ip_adapter"}


def test_the_table_says_what_each_generator_is() -> None:
    text = "\n".join(describe_generators())
    for name, spec in GENERATORS.items():
        assert name in text and spec.summary in text and spec.frame_rule in text
        for part in spec.parts.values():
            assert part.hub_id in text and part.licence in text and part.option in text
        height, width = choose_size(spec, None, 1080, 1920)
        assert height % spec.size_multiple == width % spec.size_multiple == 0 and width <= spec.max_res
        assert choose_windows(spec, None, None) == (spec.window, spec.stride)


def test_parts_belong_to_their_generator(small_generator: Path) -> None:
    assert find_generator("svd", {"base": "x/y"}).name == "svd"
    with pytest.raises(ValueError, match="--generator: 'anmatediff' is not known; did you mean 'animatediff'"):
        find_generator("anmatediff", {})
    with pytest.raises(ValueError, match="--motion-adapter: is not of wan-vace; it goes with --generator animatediff"):
        find_generator("wan-vace", {"motion_adapter": "x"})
    with pytest.raises(ValueError, match="--generator: is missing; --controlnet goes with svd or animatediff"):
        find_generator(None, {"controlnet": "x"})


def test_a_small_generator_says_itself_what_it_is(small_generator: Path, tmp_path: Path) -> None:
    copy = tmp_path / "generator.json"
    told = json.loads((small_generator / "generator.json").read_text())
    copy.write_text(json.dumps({**told, "window": 6, "known": 1, "multiple": 32}))
    spec = find_generator("bundled", {"base": str(tmp_path)})
    assert (spec.window, spec.stride, spec.size_multiple) == (6, 5, 32)
    assert choose_windows(spec, None, None) == (6, 5)
    with pytest.raises(ValueError, match="was trained for 6 and 5; leave them out"):
        choose_windows(spec, 8, None)
    with pytest.raises(FileNotFoundError, match="a small generator .* is not in ./nowhere"):
        find_generator("bundled", {"base": "./nowhere"})


@pytest.mark.skipif(not SMALL_FOLDER.exists(), reason="the bundled generator is not trained yet")
def test_the_bundled_one_is_the_default() -> None:
    assert find_generator(None, {"base": None}) == GENERATORS["bundled"]


@pytest.mark.parametrize(
    ("name", "size", "nearest"),
    [("svd", "500x300", "512x320"), ("wan-vace", "830x475", "832x480"), ("animatediff", "3x3", "8x8")],
)
def test_the_nearest_possible_size_is_named(name: str, size: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"--size: {size} .* nearest: {nearest}"):
        choose_size(GENERATORS[name], size, 100, 100)
    width, height = (int(side) for side in nearest.split("x"))
    assert choose_size(GENERATORS[name], nearest, 100, 100) == (height, width)


@pytest.mark.parametrize("size", ["", "512", "axb", "0x64", "64x-64"])
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(ValueError, match="give WIDTHxHEIGHT"):
        choose_size(GENERATORS["svd"], size, 100, 100)


def test_windows_follow_the_generator_s_rule() -> None:
    assert choose_windows(GENERATORS["wan-vace"], 17, None) == (17, 12)
    assert choose_windows(GENERATORS["wan-vace"], 5, None) == (5, 4)
    for window, stride, text in (
        (80, None, "--window: 80 is not 4 n [+] 1.* nearest: 81"),
        (2, None, "nearest: 5"),
        (9, 6, "--stride: 6 is not a multiple of 4"),
        (9, 12, "stride: 12 is larger than the window"),
    ):
        with pytest.raises(ValueError, match=text):
            choose_windows(GENERATORS["wan-vace"], window, stride)
    assert choose_windows(GENERATORS["animatediff"], 16, None) == (16, 12)
    with pytest.raises(ValueError, match="too short for motion"):
        choose_windows(GENERATORS["animatediff"], 1, None)


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("animatediff", {"prompt": None}, "--prompt: is missing; animatediff makes the look from words"),
        ("wan-vace", {"prompt": "  "}, "--prompt: is missing"),
        ("bundled", {}, "--prompt: bundled reads no words"),
        ("svd", {"prompt": None, "negative_prompt": "x"}, "--negative-prompt: svd reads no words"),
        ("animatediff", {"control_scale": -1.0}, "--control-scale: -1"),
        ("animatediff", {"control_scale": float("nan")}, "--control-scale: nan"),
        ("animatediff", {"control_start": 0.6, "control_end": 0.5}, "0 <= start < end <= 1"),
        ("animatediff", {"control_end": 1.5}, "0 <= start < end <= 1"),
        ("animatediff", {"steps": 0}, "--steps: 0"),
        ("animatediff", {"guidance": -2.0}, "--guidance: -2"),
        ("animatediff", {"strength": 0.0}, "--strength: 0 is not accepted"),
        ("animatediff", {"strength": 0.05, "steps": 4}, "less than one step"),
        ("wan-vace", {"strength": 0.5}, "does no video-to-video; it goes with --generator animatediff"),
        ("animatediff", {"seed": -1}, "seed: -1"),
        ("svd", {"prompt": None, "fps_id": 31}, "--fps-id: 31 is not accepted; svd knows 1 to 30"),
        ("svd", {"prompt": None, "fps_id": 0}, "--fps-id: 0 is not accepted"),
        ("svd", {"prompt": None, "motion": 256}, "--motion: 256 is not accepted; svd knows 1 to 255"),
        ("wan-vace", {"fps_id": 7}, "--fps-id: is not of wan-vace; it goes with --generator svd"),
        ("bundled", {"prompt": None, "motion": 7}, "--motion: is not of bundled; it goes with --generator svd"),
        ("bundled", {"prompt": None, "steps": 4}, "--steps: the small generator takes one step"),
        ("bundled", {"prompt": None, "guidance": 2.0}, "--guidance: the small generator takes one step"),
    ],
)
def test_requests_that_can_not_be_are_refused(name: str, changes: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_request(GENERATORS[name], replace(WORDS, **changes))


def test_requests_that_can_be_are_accepted() -> None:
    check_request(GENERATORS["animatediff"], replace(WORDS, strength=0.5, negative_prompt="blurry"))
    check_request(GENERATORS["svd"], Request())
    check_request(GENERATORS["wan-vace"], WORDS)


@pytest.mark.parametrize(("fps", "told"), [(58.94, 30), (23.976, 24), (25, 25), (0.4, 1), (120, 30)])
def test_svd_is_told_a_frame_rate_that_it_knows(fps: float, told: int) -> None:
    request, notes = choose_motion(GENERATORS["svd"], Request(), fps)
    assert (request.fps_id, request.motion) == (told, 127)
    assert bool(notes) == (told != round(fps)) and all(f"told {told} frames per second" in note for note in notes)
    request, notes = choose_motion(GENERATORS["svd"], Request(fps_id=6, motion=40), fps)
    assert (request.fps_id, request.motion, notes) == (6, 40, ())
    assert choose_motion(GENERATORS["animatediff"], WORDS, fps) == (WORDS, ())


def test_devices_that_are_not_there_are_refused() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device: 'cuda' is not known; .*accepted: auto, cpu"):
            check_device(GENERATORS["svd"], "cuda", "auto", "none")
    with pytest.raises(ValueError, match="--offload: model moves weights off a GPU, and the device is the CPU"):
        check_device(GENERATORS["svd"], "cpu", "auto", "model")
    with pytest.raises(ValueError, match="--dtype: float16 is not of the bundled generator"):
        check_device(GENERATORS["bundled"], "cpu", "float16", "none")
    with pytest.raises(ValueError, match="dtype: 'int8'"):
        check_device(GENERATORS["svd"], "cpu", "int8", "none")
    with pytest.raises(ValueError, match="--offload: 'al' is not known"):
        check_device(GENERATORS["svd"], "cpu", "auto", "al")


def test_parts_are_found_or_the_command_that_fetches_them_is_told(
    animatediff_folders: dict[str, Path], tmp_path: Path
) -> None:
    named = {name: str(folder) for name, folder in animatediff_folders.items()}
    assert find_parts("animatediff", named) == animatediff_folders
    without = find_parts("animatediff", {**named, "ip_adapter": None})
    assert set(without) == {"base", "motion_adapter", "controlnet"}, "what is optional is not fetched"
    with pytest.raises(FileNotFoundError, match=r"--ip-adapter: h94/IP-Adapter .* hf download h94/IP-Adapter"):
        find_parts("animatediff", {**named, "ip_adapter": None}, optional=("ip_adapter",))
    with pytest.raises(FileNotFoundError, match=r"--controlnet: .* run: hf download me/mine --revision v2 --local-dir"):
        find_parts("animatediff", {**named, "controlnet": "me/mine@v2"})
    with pytest.raises(FileNotFoundError, match="--base: no such folder: ./nowhere"):
        find_parts("animatediff", {**named, "base": "./nowhere"})
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").touch()
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(ValueError, match="--base: .*diffusion_pytorch_model.bin is a pickle, which can run code"):
        find_parts("animatediff", {**named, "base": str(tmp_path)})


def test_other_weights_are_another_run(animatediff_folders: dict[str, Path], tmp_path: Path) -> None:
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"1234")
    before = weights_identity({"base": tmp_path})
    assert before == weights_identity({"base": tmp_path})
    weights.write_bytes(b"12345")
    assert weights_identity({"base": tmp_path}) != before


@pytest.fixture(scope="session")
def all_folders(
    animatediff_folders: dict[str, Path], wan_folder: Path, svd_folders: dict[str, Path], small_generator: Path
) -> dict[str, dict[str, Path]]:
    """Generator -> folders of tiny parts."""
    return {
        "bundled": {"base": small_generator},
        "svd": svd_folders,
        "animatediff": _without_image(animatediff_folders),
        "wan-vace": {"base": wan_folder},
    }


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_is_loaded_by_its_name(name: str, all_folders: dict[str, dict[str, Path]]) -> None:
    generator = load_generator(name, all_folders[name], window=9, stride=8, device="cpu")
    if name != "bundled":
        assert (generator.window, generator.stride) == (9, 8)
    assert generator.size_multiple == GENERATORS[name].size_multiple
    control = moving_control(9, 64, 64)
    image = control[0] if GENERATORS[name].image == "first frame" else None
    request = replace(WORDS, steps=1, image=image)
    pieces = list(generator.generate(iter(control), request, state=None))
    made = np.concatenate([piece.frames for piece in pieces])
    assert made.shape == (9, 64, 64, 3) and made.dtype == np.uint8


@pytest.mark.parametrize("names", ["fp16", "shards", "fp16 shards"])
@pytest.mark.parametrize("name", ["svd", "animatediff", "wan-vace"])
def test_weights_under_other_names_are_found_and_loaded(
    name: str, names: str, all_folders: dict[str, dict[str, Path]], animatediff_folders: dict[str, Path], tmp_path: Path
) -> None:
    folders = dict(animatediff_folders if name == "animatediff" else all_folders[name])
    for part, folder in folders.items():
        folders[part] = Path(shutil.copytree(folder, tmp_path / part))
        if "shards" in names:
            shard(folders[part], "fp16" if "fp16" in names else "")
        else:
            rename_fp16(folders[part])
        assert not model_files(folders[part])
    found = find_parts(name, {part: str(folder) for part, folder in folders.items()})
    assert found == folders
    control = moving_control(5, 64, 64)
    image = None if name == "wan-vace" else control[0]
    generator = load_generator(name, found, window=5, stride=4, device="cpu", dtype="float32")
    (piece,) = generator.generate(iter(control), replace(WORDS, steps=1, image=image), state=None)
    assert piece.frames.shape == (5, 64, 64, 3)


@pytest.mark.parametrize(
    ("name", "part", "file"),
    [
        ("svd", "base", "image_encoder/model.safetensors"),
        ("svd", "controlnet", "diffusion_pytorch_model.safetensors"),
        ("animatediff", "base", "text_encoder/model.safetensors"),
        ("animatediff", "base", "tokenizer/"),
        ("animatediff", "ip_adapter", "models/image_encoder/model.safetensors"),
        ("wan-vace", "base", "transformer/diffusion_pytorch_model.safetensors"),
        ("wan-vace", "base", "scheduler/scheduler_config.json"),
    ],
)
def test_a_missing_file_is_told_before_anything_loads(
    name: str,
    part: str,
    file: str,
    all_folders: dict[str, dict[str, Path]],
    animatediff_folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    folders = dict(animatediff_folders if name == "animatediff" else all_folders[name])
    folders[part] = Path(shutil.copytree(folders[part], tmp_path / "part"))
    shutil.rmtree(folders[part] / file) if file.endswith("/") else (folders[part] / file).unlink()
    option = f"--{part.replace('_', '-')}"
    with pytest.raises(ValueError, match=rf"{option}: .*({Path(file).name}).* is missing in .*/part"):
        find_parts(name, {part: str(folder) for part, folder in folders.items()})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="offloading needs a GPU")
@pytest.mark.parametrize("name", ["svd", "animatediff", "wan-vace"])
@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloading_changes_no_frame(name: str, offload: Offload, all_folders: dict[str, dict[str, Path]]) -> None:
    made = []
    for way in ("none", offload):
        generator = load_generator(
            name, all_folders[name], window=9, stride=8, device="cuda", dtype="float32", offload=cast(Offload, way)
        )
        control = moving_control(17, 64, 64)
        image = control[0] if name == "svd" else None
        pieces = generator.generate(iter(control), replace(WORDS, steps=1, image=image), state=None)
        made.append(np.concatenate([piece.frames for piece in pieces]).astype(int))
    assert np.abs(made[0] - made[1]).max() <= 1
