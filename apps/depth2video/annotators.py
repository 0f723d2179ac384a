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
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depth_engine.depth.formats import open_depth_sink
from depth_engine.depth.sidecar import make_sidecar, read_sidecar, sidecar_path, write_sidecar
from depth_engine.depth.source import DepthSource, open_depth
from depth_engine.models.loading import check_no_faults, fetch
from depth_engine.video.probe import DecodeError
from depth_engine.video.take import Take, check_source

if TYPE_CHECKING:
    import torch

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


@dataclass(frozen=True)
class AnnotatorPlan:
    """Depth by an annotator, all of it checked.

    Attributes:
        name: One of `ANNOTATORS`.
        take: The part of the clip.
        folder: Where the depth is kept: `depth.mkv` and its sidecar.
        weights: The weight file.
        device: Where it runs.
        detect_resolution: Short side that the network works at.
    """

    name: str
    take: Take
    folder: Path
    weights: Path
    device: str
    detect_resolution: int = DETECT_RESOLUTION

    @property
    def identity(self) -> dict[str, Any]:
        """What makes the depth; plain data."""
        facts = self.weights.stat()
        whole = {
            **self.take.identity(check_source(self.take)),
            "annotator": self.name,
            "weights": [self.weights.name, facts.st_size, facts.st_mtime_ns],
            "detect_resolution": self.detect_resolution,
        }
        return json.loads(json.dumps(whole))

    @property
    def note(self) -> str:
        """What a user has to know of this baseline."""
        return (
            f"{self.name} looks at one frame at a time and scales each {ANNOTATORS[self.name].scale}, so the control "
            "flickers where that range changes; --depth engine does not"
        )

    def run(self, on_frames: Callable[[int], None] = lambda done: None) -> DepthSource:
        """Make the depth, or use what an earlier run of the same settings left.

        A source that breaks off gives depth as far as it could be read; the sidecar says so.

        Raises:
            DecodeError: Not one frame could be read.
            ValueError: The weights do not fit.
        """
        sidecar = sidecar_path(self.folder / "depth")
        if not (sidecar.exists() and read_sidecar(sidecar).get("run") == self.identity):
            sidecar.unlink(missing_ok=True)
            self._make(sidecar, on_frames)
        return open_depth(self.folder)

    def _make(self, sidecar: Path, on_frames: Callable[[int], None]) -> None:
        from depth_engine.devices import choose_device

        info = check_source(self.take)
        rate = self.take.rate(info)
        detect = load_annotator(self.name, self.weights, choose_device(self.device), self.detect_resolution)
        self.folder.mkdir(parents=True, exist_ok=True)
        times_s: list[float] = []
        notes = [self.note]
        sink = open_depth_sink(
            self.folder / "depth",
            "mkv",
            height=info.height,
            width=info.width,
            fps=rate,
            kind="disparity",
            overwrite=True,
        )
        with sink:
            try:
                for frame in self.take.frames():
                    sink.write(detect(frame.rgb), frame.time_s)
                    times_s.append(frame.time_s)
                    on_frames(len(times_s))
            except DecodeError as error:
                if not times_s:
                    raise
                notes.append(f"The source broke off: {error}")
        content = make_sidecar(
            kind="disparity",
            fps=rate,
            times_s=times_s,
            height=info.height,
            width=info.width,
            settings={"annotator": self.name, "detect_resolution": self.detect_resolution},
            source=str(self.take.source),
        )
        write_sidecar(sidecar, {**content, "notes": notes, "run": self.identity}, overwrite=True)


def plan_annotator(
    name: str,
    take: Take,
    folder: Path,
    *,
    weights: str | None = None,
    device: str = "auto",
    detect_resolution: int = DETECT_RESOLUTION,
) -> AnnotatorPlan:
    """Check all that can be checked before anything heavy loads.

    Args:
        name: One of `ANNOTATORS`.
        take: The part of the clip.
        folder: Where the depth is kept.
        weights: Folder of the weights, or hub id.
        device: As `depth-engine estimate` takes it.
        detect_resolution: Short side that the network works at, a multiple of 64.

    Raises:
        ValueError: The package is missing, or an argument is not accepted.
        FileNotFoundError: The weights are not there.
    """
    from depth_engine.devices import choose_device

    if importlib.util.find_spec("controlnet_aux") is None:
        raise ValueError(f"--depth: {name} needs controlnet-aux: pip install 'depth-engine[control]'")
    choose_device(device)
    if detect_resolution < _MULTIPLE or detect_resolution % _MULTIPLE:
        near = max(1, round(detect_resolution / _MULTIPLE)) * _MULTIPLE
        raise ValueError(f"--detect-resolution: {detect_resolution} is not a multiple of {_MULTIPLE}; nearest: {near}")
    return AnnotatorPlan(name, take, folder, find_annotator_weights(name, weights), device, detect_resolution)


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
        if given.count("/") != 1 or given.startswith((".", "/", "~")):
            raise FileNotFoundError(f"--annotator-weights: no such folder: {given}")
        folder = fetch(given, names)
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
