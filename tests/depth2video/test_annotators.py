"""controlnet-aux's networks have fixed architectures of 115 to 345 million parameters, so the networks are full-sized.

Their checkpoints are not: a tensor in them is one row, laid out over its shape with strides of zero, which takes a few
kilobytes on disk and reads back whole. MiDaS and LeReS run at 64 pixels; ZoeDepth always works at 384x512, so it is
among the slow tests.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("controlnet_aux", reason="the extra `control` is not installed")

from depth2video.annotators import ANNOTATORS, choose_annotator, find_annotator_weights, load_annotator
from depth2video.plan.asked import AskedControl
from depth2video.plan.depth_origin import choose_clip_depth

from depth_engine.depth.depth_video import DepthVideo
from depth_engine.depth.input import DepthInput, DepthRequest
from depth_engine.video.take import Take, check_source
from tests.clips import make_clip

CPU = torch.device("cpu")


def _network(name: str) -> nn.Module:
    if name == "midas":
        from controlnet_aux.midas.midas.dpt_depth import DPTDepthModel

        return DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True)
    if name == "leres":
        from controlnet_aux.leres.leres.multi_depth_model_woauxi import RelDepthModel

        return RelDepthModel(backbone="resnext101")
    from controlnet_aux.zoe.zoedepth.models.zoedepth.zoedepth_v1 import ZoeDepth
    from controlnet_aux.zoe.zoedepth.utils.config import get_config

    return ZoeDepth.build_from_config(get_config("zoedepth", "infer"))


def _slim(tensor: torch.Tensor) -> torch.Tensor:
    """Its first row laid over the whole shape; what is shared in memory is saved once."""
    if tensor.ndim < 2:
        return tensor.clone()
    return tensor[:1].clone().expand(tensor.shape)


def write_checkpoint(folder: Path, name: str) -> Path:
    """A checkpoint of the published layout: the file's name, its entries, its prefixes."""
    torch.manual_seed(0)
    tensors = {key: _slim(tensor) for key, tensor in _network(name).state_dict().items()}
    if name == "leres":
        tensors = {f"module.{key}": tensor for key, tensor in tensors.items()}
    entry = ANNOTATORS[name].entry
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors if entry is None else {entry: tensors}, folder / ANNOTATORS[name].file)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annotators")
    write_checkpoint(folder, "midas")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10e6
    return write_checkpoint(folder, "leres")


def _check_annotator(name: str, weights: Path) -> None:
    """A map of the frame's own size, scaled by itself; the command line is left alone."""
    before = list(sys.argv)
    sys.argv = ["depth2video", "clip.mp4", "-o", "out.mp4", "--depth", name]
    try:
        detect = load_annotator(name, find_annotator_weights(name, str(weights)), CPU, 64)
    finally:
        assert sys.argv[1:] == ["clip.mp4", "-o", "out.mp4", "--depth", name]
        sys.argv = before
    generator = np.random.default_rng(0)
    frame = generator.integers(0, 256, (72, 100, 3), dtype=np.uint8)
    disparity = detect(frame)
    assert disparity.shape == (72, 100) and disparity.dtype == np.float32
    assert 0 <= disparity.min() < 0.2 and 0.8 < disparity.max() <= 1


@pytest.mark.parametrize("name", ["midas", "leres"])
def test_annotators_give_maps_of_the_frame_s_size(weights: Path, name: str) -> None:
    _check_annotator(name, weights)


@pytest.mark.slow
def test_zoe_gives_maps_of_the_frame_s_size(tmp_path: Path) -> None:
    _check_annotator("zoe", write_checkpoint(tmp_path, "zoe"))


def test_depth_is_made_once_and_says_what_it_is(weights: Path, tmp_path: Path) -> None:
    clip = Take(make_clip(tmp_path / "clip.mp4", frames=2))

    def chosen(side: int) -> DepthInput:
        asked = AskedControl(
            DepthRequest("midas", device="cpu"), annotator_weights=str(weights), detect_resolution=side
        )
        return choose_clip_depth(asked, clip, check_source(clip), tmp_path / "new.mp4")

    depth, done = chosen(64), []
    (note,) = depth.notes
    assert "scales each from its own minimum" in note and "flickers" in note
    source = depth.get(done.append)
    assert done == [1, 2]
    assert (source.kind, source.height, source.width, source.frame_count) == ("disparity", 48, 64, 2)
    made = DepthVideo.load(tmp_path / "new.midas")
    assert made.meta["notes"] == [note]
    np.testing.assert_allclose(made.times_s, [0, 0.04])
    again: list[int] = []
    chosen(64).get(again.append)
    assert again == [], "what is there is used again"
    chosen(128).get(again.append)
    assert again == [1, 2], "but not that of other settings"


def test_wrong_weights_get_one_line(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--annotator-weights: no such folder: ./nowhere"):
        find_annotator_weights("midas", "./nowhere")
    with pytest.raises(FileNotFoundError, match=r"hf download lllyasviel/Annotators ZoeD_M12_N.pt"):
        find_annotator_weights("zoe", str(weights))
    with pytest.raises(FileNotFoundError, match=r"hf download lllyasviel/Annotators"):
        find_annotator_weights("zoe")
    damaged = tmp_path / ANNOTATORS["leres"].file
    damaged.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="can't be read as tensors"):
        load_annotator("leres", damaged, CPU)
    with pytest.raises(ValueError, match="do not fit their config: .* is missing"):
        load_annotator("leres", weights / ANNOTATORS["midas"].file, CPU)


def test_a_pickle_that_holds_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / ANNOTATORS["midas"].file
    path.write_bytes(pickle.dumps({"weight": Evil()}))
    with pytest.raises(ValueError, match="can't be read as tensors"):
        load_annotator("midas", path, CPU)
    assert not (tmp_path / "ran").exists()


def test_safetensors_are_taken_first(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "res101.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    (tmp_path / ANNOTATORS["leres"].file).touch()
    assert find_annotator_weights("leres", str(tmp_path)) == path


@pytest.mark.parametrize(("resolution", "nearest"), [(100, 128), (1, 64), (0, 64)])
def test_the_resolution_is_a_multiple_of_64(weights: Path, tmp_path: Path, resolution: int, nearest: int) -> None:
    with pytest.raises(ValueError, match=f"nearest: {nearest}"):
        choose_annotator("midas", weights=str(weights), detect_resolution=resolution)


def test_without_the_package_the_command_to_install_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"midas needs controlnet-aux: pip install 'depth-engine\[control\]'"):
        choose_annotator("midas")
