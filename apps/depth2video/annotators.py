"""The frame-wise depth annotators of controlnet-aux: the control that editors use today, as a baseline.

MidasDetector, ZoeDetector and LeresDetector see one frame at a time and scale each by its own range, so their control
flickers; that is theirs, and it is told. What is undone or avoided here:

- They round both sides to multiples of 64, which changes the aspect: the map is brought back to the frame's own size.
- `LeresDetector.from_pretrained` parses `sys.argv` and fetches a second network for a mode that is not used here:
  weights are loaded without it.
- Their weights are published as pickles: these are read as tensors alone (`weights_only`), so that no code in them can
  run. A safetensors file of the same name is taken where there is one.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depth_engine.models.hub import HubFiles, fetch, is_hub_id
from depth_engine.models.loading import check_no_faults
from depth_engine.runs.pieces import Piece

if TYPE_CHECKING:
    import torch

    from depth_engine.runs.resumable import Job, Source
    from depth_engine.video.probe import VideoInfo

DEFAULT_WEIGHTS = "lllyasviel/Annotators"
# Short side that the networks work at, as ControlNet's own examples have it.
DETECT_RESOLUTION = 512
_MULTIPLE = 64  # of controlnet-aux


@dataclass(frozen=True)
class _Kind:
    """An annotator: its weight file, the entry of the file that holds the tensors, and how it scales a frame."""

    file: str
    entry: str | None
    scale: str


ANNOTATORS = {
    "midas": _Kind("dpt_hybrid-midas-501f0c75.pt", None, "from its own minimum to its own maximum"),
    "zoe": _Kind("ZoeD_M12_N.pt", "model", "from its own 2nd to its own 85th percentile; what is farther is black"),
    "leres": _Kind("res101.pth", "depth_model", "from its own minimum to its own maximum"),
}


class AnnotatorMaker:
    """An annotator that is loaded, as a maker of depth; see `DepthMaker`."""

    kind = "disparity"
    bounded = True

    def __init__(self, method: AnnotatorMethod, detect: Callable[[np.ndarray], np.ndarray]) -> None:
        self.name, self._method, self._detect = method.name, method, detect
        self.detect_shots = method.shots

    def make(self, source: Source, first: int, state: dict[str, torch.Tensor]) -> Iterator[Piece]:
        """See `DepthMaker.make`."""
        for frame in source.frames():
            if frame.index >= first:
                yield Piece(self._detect(frame.rgb)[None])

    def restore(self, made: np.ndarray, info: VideoInfo) -> np.ndarray:
        """See `DepthMaker.restore`; it has that size."""
        return made

    def facts(self, info: VideoInfo) -> dict[str, Any]:
        """See `DepthMaker.facts`."""
        settings = {"annotator": self.name, "detect_resolution": self._method.detect_resolution}
        return {"settings": settings, "notes": [self._method.note]}


@dataclass(frozen=True)
class AnnotatorMethod:
    """Depth by an annotator, all of it checked; see `DepthMethod`.

    Attributes:
        name: One of `ANNOTATORS`.
        weights: The weight file.
        device: Where it runs.
        detect_resolution: Short side that the network works at.
        shots: Find cuts.
    """

    name: str
    weights: Path
    device: str
    detect_resolution: int = DETECT_RESOLUTION
    shots: bool = True
    kind = "disparity"

    def identity(self) -> dict[str, Any]:
        """What makes the depth; plain data."""
        facts = self.weights.stat()
        return {
            "annotator": self.name,
            "weights": [self.weights.name, facts.st_size, facts.st_mtime_ns],
            "detect_resolution": self.detect_resolution,
            "shots": self.shots,
        }

    @property
    def note(self) -> str:
        """What a user has to know of this baseline."""
        return (
            f"{self.name} looks at one frame at a time and scales each {ANNOTATORS[self.name].scale}, so the control "
            "flickers where that range changes; --depth engine does not"
        )

    def load(self, job: Job) -> AnnotatorMaker:
        """Load it.

        Raises:
            ValueError: The weights do not fit.
        """
        from depth_engine.devices import choose_device

        detect = load_annotator(self.name, self.weights, choose_device(self.device), self.detect_resolution)
        return AnnotatorMaker(self, detect)


def choose_annotator(
    name: str,
    *,
    weights: str | None = None,
    device: str = "auto",
    detect_resolution: int | None = None,
    shots: bool = True,
) -> AnnotatorMethod:
    """Check all that can be checked before anything heavy loads.

    Args:
        name: One of `ANNOTATORS`.
        weights: Folder of the weights, or hub id.
        device: As `depth-engine estimate` takes it.
        detect_resolution: Short side that the network works at, a multiple of 64; None: the usual one.
        shots: Find cuts.

    Raises:
        ValueError: The package is missing, or an argument is not accepted.
        FileNotFoundError: The weights are not there.
    """
    from depth_engine.devices import choose_device

    if importlib.util.find_spec("controlnet_aux") is None:
        raise ValueError(f"--depth: {name} needs controlnet-aux: pip install 'depth-engine[control]'")
    choose_device(device)
    side = DETECT_RESOLUTION if detect_resolution is None else detect_resolution
    if side < _MULTIPLE or side % _MULTIPLE:
        near = max(1, round(side / _MULTIPLE)) * _MULTIPLE
        raise ValueError(f"--detect-resolution: {side} is not a multiple of {_MULTIPLE}; nearest: {near}")
    return AnnotatorMethod(name, find_annotator_weights(name, weights), device, side, shots)


def find_annotator_weights(name: str, weights: str | None = None) -> Path:
    """The weight file of an annotator.

    Args:
        name: One of `ANNOTATORS`.
        weights: Local folder or hub id; None: where they are published.

    Raises:
        FileNotFoundError: There is none; says what to do.
    """
    published = ANNOTATORS[name].file
    names = (Path(published).with_suffix(".safetensors").name, published)
    given = weights or DEFAULT_WEIGHTS
    folder = Path(given) if Path(given).is_dir() else None
    if folder is None:
        if not is_hub_id(given):
            raise FileNotFoundError(f"--annotator-weights: no such folder: {given}")
        files = HubFiles(others=names, needed=("|".join(names),))
        folder = fetch(given, files, check=files.check, argument="--annotator-weights")
    for file in names:
        if (folder / file).is_file():
            return folder / file
    raise FileNotFoundError(
        f"--annotator-weights: {folder} holds no {published}; where there is a network, run: "
        f"hf download {DEFAULT_WEIGHTS} {published} --local-dir FOLDER, and give that folder"
    )


def load_annotator(
    name: str, weights: Path, device: torch.device, detect_resolution: int = DETECT_RESOLUTION
) -> Callable[[np.ndarray], np.ndarray]:
    """Load an annotator.

    Args:
        name: One of `ANNOTATORS`.
        weights: Its weight file.
        device: Where it runs.
        detect_resolution: Short side that the network works at, a multiple of 64.

    Returns:
        Function from a frame, uint8 `[H, W, 3]`, to its disparity, float32 `[H, W]` in [0, 1], near is large, scaled
        as the annotator scales it.

    Raises:
        ValueError: The file can't be read as tensors, or they do not fit the network.
    """
    import cv2

    tensors = _read_tensors(weights, ANNOTATORS[name].entry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts of the package that are not used here
        detector = _DETECTORS[name](weights, tensors)
    detector.to(device)

    def detect(rgb: np.ndarray) -> np.ndarray:
        grey = detector(rgb, detect_resolution=detect_resolution, image_resolution=detect_resolution, output_type="np")
        height, width = rgb.shape[:2]
        disparity = grey[..., 0].astype(np.float32) / 255
        return cv2.resize(disparity, (width, height), interpolation=cv2.INTER_LINEAR)

    return detect


def _read_tensors(weights: Path, entry: str | None) -> dict[str, torch.Tensor]:
    if weights.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(weights)
        except SafetensorError as error:
            raise ValueError(f"--annotator-weights: {weights} is not a whole safetensors file ({error})") from error
    import torch

    try:
        held = torch.load(weights, map_location="cpu", weights_only=True)
        tensors = held if entry is None or entry not in held else held[entry]
        return {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    except Exception as error:  # whatever a damaged or foreign pickle raises
        raise ValueError(
            f"--annotator-weights: {weights} can't be read as tensors ({type(error).__name__}); fetch it anew"
        ) from error


def _fill(model: torch.nn.Module, weights: Path, tensors: dict[str, torch.Tensor]) -> None:
    expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
    # timm renamed and dropped an index table that is computed, not learned.
    computed = "relative_position_index"
    faults = [f"{key} is missing" for key in expected if key not in tensors and computed not in key]
    faults += [
        f"{key} has shape {list(tensor.shape)}, expected {list(expected[key])}"
        for key, tensor in tensors.items()
        if key in expected and tensor.shape != expected[key]
    ]
    check_no_faults(weights, faults)
    import torch

    torch.nn.Module.load_state_dict(model, {key: tensors[key] for key in expected if key in tensors}, strict=False)
    model.eval()


def _midas(weights: Path, tensors: dict[str, torch.Tensor]) -> Any:
    from controlnet_aux import MidasDetector
    from controlnet_aux.midas.midas.dpt_depth import DPTDepthModel

    # The network that "dpt_hybrid" names; the class around it would read the pickle without a limit.
    model = DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True)
    _fill(model, weights, tensors)
    return MidasDetector(model)


def _zoe(weights: Path, tensors: dict[str, torch.Tensor]) -> Any:
    from controlnet_aux import ZoeDetector
    from controlnet_aux.zoe.zoedepth.models.zoedepth.zoedepth_v1 import ZoeDepth
    from controlnet_aux.zoe.zoedepth.utils.config import get_config

    model = ZoeDepth.build_from_config(get_config("zoedepth", "infer"))
    _fill(model, weights, tensors)
    return ZoeDetector(model)


def _leres(weights: Path, tensors: dict[str, torch.Tensor]) -> Any:
    from controlnet_aux import LeresDetector
    from controlnet_aux.leres.leres.multi_depth_model_woauxi import RelDepthModel

    model = RelDepthModel(backbone="resnext101")
    _fill(model, weights, tensors)
    return LeresDetector(model, None)  # the second network serves `boost`, which takes minutes a frame


_DETECTORS: dict[str, Callable[[Path, dict[str, Any]], Any]] = {"midas": _midas, "zoe": _zoe, "leres": _leres}
