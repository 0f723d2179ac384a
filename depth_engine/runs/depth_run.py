"""Depth of a clip, from source to finished files: what `depth-engine estimate` does for each input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from depth_engine.depth.formats import DEPTH_FORMATS, depth_path, to_unit
from depth_engine.depth.sidecar import Held, MadeBy, make_sidecar, sidecar_path, write_sidecar
from depth_engine.depth.sinks import DepthSink, Stored, open_depth_sink
from depth_engine.models.contract import Carry, Checkpoint
from depth_engine.report.colours import colorize, side_by_side
from depth_engine.report.page import Report, write_report
from depth_engine.runs.background import read_ahead
from depth_engine.runs.pieces import Piece, PieceStore
from depth_engine.runs.resumable import Job, Progress, ResumableRun, Source, plain
from depth_engine.video.frame import Frame
from depth_engine.video.marks import Marks
from depth_engine.video.probe import VideoInfo
from depth_engine.video.sequence_files import is_pattern

if TYPE_CHECKING:
    from torch import Tensor

    from depth_engine.engine import DepthEngine
    from depth_engine.models.resize import ModelSize

READ_AHEAD_BYTES = 128 * 2**20  # of frames at the model's size: several windows of most


@dataclass(frozen=True)
class DepthJob(Job):
    """What to do with one clip.

    Attributes:
        folder: Output folder of this clip.
        formats: Depth formats to write.
    """

    folder: Path = Path()
    formats: tuple[str, ...] = ("mkv",)

    @property
    def work(self) -> Path:
        """Where unfinished files lie."""
        return self.folder / ".work"

    @property
    def sidecar(self) -> Path:
        """How the depth was made."""
        return sidecar_path(self.folder / "depth")

    @property
    def preview(self) -> Path:
        """Source and depth side by side."""
        return self.folder / "preview.mp4"

    @property
    def outputs(self) -> list[Path]:
        """Every finished file and folder, the report last."""
        depth = [depth_path(self.folder / "depth", name) for name in self.formats]
        return [*depth, self.sidecar, self.preview, self.folder / "report.html"]

    @property
    def stale(self) -> list[Path]:
        """Depth in other formats: it would not fit the new sidecar."""
        return [depth_path(self.folder / "depth", name) for name in DEPTH_FORMATS if name not in self.formats]


class DepthMaker(Protocol):
    """What makes depth of pictures, loaded.

    Attributes:
        name: Of its weights.
        kind: `disparity`, `depth` or `metric`.
        bounded: Whether values lie in [0, 1]; if not, their range is known once all are made.
        detect_shots: Whether cuts are looked for.
    """

    name: str
    kind: str
    bounded: bool
    detect_shots: bool

    def make(self, source: Source, first: int, state: dict[str, Tensor]) -> Iterator[Piece]:
        """Depth float32 `[n, h, w]` at any size, from frame `first` on."""
        ...

    def restore(self, made: np.ndarray, info: VideoInfo) -> np.ndarray:
        """A frame of that depth at the size of the source's frames."""
        ...

    def facts(self, info: VideoInfo) -> dict[str, Any]:
        """For the sidecar: `settings`; `checkpoint`, `seed` and `notes` if it has them."""
        ...


class DepthRun(ResumableRun):
    """Depth files, preview and report of a clip.

    Args:
        job: What to do, checked.
        identity: From `DepthMethod.identity`.
        maker: What makes the depth.
        on_frames: Told how many frames are done.
        on_depth: Given each frame's depth as it is written, float32 `[H, W]`, in another thread, and the range that
            16-bit counts stand for; nothing where all is finished already.
    """

    preview_width = 960  # the preview is for looking, the archive for working

    def __init__(
        self,
        job: DepthJob,
        identity: Mapping[str, Any],
        maker: DepthMaker,
        on_frames: Progress = lambda done: None,
        on_depth: Callable[[np.ndarray, tuple[float, float]], None] | None = None,
    ) -> None:
        super().__init__(job, identity, on_frames)
        self.depth_job, self.maker, self.on_depth = job, maker, on_depth
        self.shots, self.writes_last = maker.detect_shots, not maker.bounded
        self.value_range = (0.0, 1.0)
        self.names: dict[str, None] = {}  # of the images of a sequence, in order
        self.sinks: dict[str, DepthSink] = {}

    def make(self, source: Source, first: int, state: dict[str, Tensor]) -> Iterator[Piece]:
        """See `ResumableRun.make`."""
        return self.maker.make(source, first, state)

    def begin_writing(self, store: PieceStore) -> None:
        """See `ResumableRun.begin_writing`: the clip's own range is what counts and colours stand for."""
        lo, hi = np.inf, -np.inf
        for made, _ in store.kept():
            lo, hi = min(lo, float(made.min())), max(hi, float(made.max()))
        self.value_range = (lo, hi) if lo < hi else (lo, lo + 1) if lo == hi else (0.0, 1.0)

    def write_frame(self, made: np.ndarray, companions: dict[str, np.ndarray], frame: Frame) -> None:
        """See `ResumableRun.write_frame`."""
        depth = self.maker.restore(made, self.info)
        name = self._name(frame)
        for format in self.depth_job.formats:
            self._sink(format).write(depth, frame.time_s, name)
        if self.on_depth is not None:
            self.on_depth(depth, self.value_range)
        unit = to_unit(made, *self.value_range)
        pair = side_by_side(frame.rgb, colorize(unit, self.maker.kind), max_width_each=self.preview_width)
        self.video(self.depth_job.preview, pair, frame.time_s)
        self.note_change(unit)

    def write_texts(self, notes: list[str]) -> None:
        """See `ResumableRun.write_texts`."""
        job, facts = self.depth_job, self.maker.facts(self.info)
        notes = [*facts.pop("notes", []), *notes]
        held = Held(
            self.maker.kind,
            job.rate(self.info),
            self.times_s,
            self.info.height,
            self.info.width,
            value_range=self.value_range,
            shots=self.first_frames,
            clipped={name: sink.clipped for name, sink in self.sinks.items()},
        )
        sidecar = make_sidecar(held, MadeBy(source=str(job.source), **facts))
        if (timecode := job.timecode(self.info)) is not None:
            sidecar["timecode"] = timecode
        if self.names:
            sidecar["frame_names"] = list(self.names)
        whole = {**sidecar, "notes": notes, "run": self.identity}
        write_sidecar(job.in_work(job.sidecar), whole, overwrite=True)
        report = Report(
            title=Path(job.source).name,
            settings={"checkpoint": self.maker.name, "kind": self.maker.kind, **facts["settings"]},
            times_s=self.times_s,
            change=self.change,
            shots=self.first_frames,
            notes=notes,
            outputs=[job.in_work(path) for path in job.outputs[:-1]],
        )
        write_report(job.in_work(job.outputs[-1]), report, preview_mp4=job.in_work(job.preview), overwrite=True)

    def _name(self, frame: Frame) -> str | None:
        """The name of a frame's own file, where no other frame had it (`1.png` beside `1.jpg`)."""
        if frame.name is None:
            return None
        name = frame.name if frame.name not in self.names else f"{frame.name}.{frame.index:06d}"
        self.names[name] = None
        return name

    def _sink(self, format: str) -> DepthSink:
        """A depth file, begun with its first frame."""
        if format not in self.sinks:
            marks = Marks(self.info.sample_aspect, self.job.timecode(self.info))
            sink = open_depth_sink(
                self.depth_job.work / "depth",
                format,
                height=self.info.height,
                width=self.info.width,
                fps=self.job.rate(self.info),
                stored=Stored(value_range=self.value_range, kind=self.maker.kind, marks=marks),
            )
            self.sinks[format] = self.open_files.enter_context(sink)
        return self.sinks[format]


class EngineMaker:
    """The engine as a maker of depth.

    Args:
        engine: Loaded checkpoint.
        settings: From the checkpoint's `choose_settings`.
        detect_shots: Find cuts.
        taken: The part of the source, for the sidecar.
    """

    def __init__(self, engine: DepthEngine, settings: Any, detect_shots: bool, taken: dict[str, Any]) -> None:
        self.engine, self.settings, self.detect_shots, self.taken = engine, settings, detect_shots, taken
        self.name, self.kind, self.bounded = engine.checkpoint.name, engine.kind, engine.checkpoint.bounded

    def make(self, source: Source, first: int, state: dict[str, Tensor]) -> Iterator[Piece]:
        """See `DepthMaker.make`."""
        import torch

        size, carry = self._size(source.info), Carry.from_tensors(state)
        frames = source.frames()
        marked = ((torch.from_numpy(frame.rgb).movedim(-1, 0).contiguous(), frame.starts_shot) for frame in frames)
        # Decoding, cuts and shrinking run ahead of the network, by a window or so.
        frame_bytes = 3 * 4 * size.model_height * size.model_width  # as float32; some are uint8
        ahead = max(1, min(self.settings.window, READ_AHEAD_BYTES // frame_bytes))
        with closing(read_ahead(iter(self.engine.sized(marked, self.settings)), ahead)) as marked:
            for _ in islice(marked, carry.frames_read):
                pass
            for result in self.engine.windows(marked, self.settings, size=size, carry=carry):
                yield Piece(result.depth.numpy(), result.carry.to_tensors())

    def restore(self, made: np.ndarray, info: VideoInfo) -> np.ndarray:
        """See `DepthMaker.restore`."""
        import torch

        return self.engine.model.restore(torch.from_numpy(made)[None], self._size(info))[0].numpy()

    def facts(self, info: VideoInfo) -> dict[str, Any]:
        """See `DepthMaker.facts`."""
        engine, size = self.engine, self._size(info)
        settings = {
            **asdict(self.settings),
            "shots": self.detect_shots,
            **self.taken,
            "model_size": [size.model_width, size.model_height],
            "device": engine.device.type,
            "dtype": str(engine.dtype).removeprefix("torch."),
            **engine.checkpoint.facts(),
        }
        checkpoint = {"name": self.name, "sha256": engine.weights_sha256}
        return {"checkpoint": checkpoint, "seed": self.settings.seed, "settings": settings}

    def _size(self, info: VideoInfo) -> ModelSize:
        return self.engine.size_of(info.height, info.width, self.settings)


@dataclass(frozen=True)
class EngineMethod:
    """Depth by the engine, checked and not loaded.

    Attributes:
        checkpoint: What computes it.
        settings: Of the engine.
        shots: Find cuts.
        device: Where it runs, as `DepthEngine.from_pretrained` takes it.
        dtype: In which it computes, likewise.
    """

    checkpoint: Checkpoint
    settings: Any
    shots: bool
    device: str
    dtype: str

    @property
    def name(self) -> str:
        """Of the checkpoint."""
        return self.checkpoint.name

    @property
    def kind(self) -> str:
        """`disparity`, `depth` or `metric`."""
        return self.checkpoint.kind

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed: checkpoint, settings, what computes. Plain data."""
        from depth_engine.devices import computes_as

        identity = {
            **self.checkpoint.identity(),
            **asdict(self.settings),
            "shots": self.shots,
            **computes_as(self.device, self.dtype),
            "software": {name: _version(name) for name in ("depth-engine", "torch", "diffusers")},
        }
        return plain(identity)

    def load_engine(self) -> DepthEngine:
        """Load the checkpoint."""
        from depth_engine.devices import choose_device, choose_dtype
        from depth_engine.engine import DepthEngine

        device = choose_device(self.device)
        return DepthEngine(self.checkpoint, self.checkpoint.load(device, choose_dtype(self.dtype, device)))

    def load(self, job: Job) -> EngineMaker:
        """Load what makes the depth of a job."""
        return self.of(self.load_engine(), job)

    def of(self, engine: DepthEngine, job: Job) -> EngineMaker:
        """What makes the depth of a job, of an engine that is loaded."""
        return EngineMaker(engine, self.settings, self.shots, job.taken())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that is not installed
        return None


def output_folders(sources: Sequence[str | Path], folder: Path) -> list[Path]:
    """One folder per clip, named after it.

    Raises:
        ValueError: If two clips would share one, or one is a clip's own.
    """
    folders: dict[Path, str | Path] = {}
    for source in sources:
        path = Path(source)
        # A pattern such as frames/%05d.png is named after its folder.
        stem = path.parent.name if is_pattern(path) else path.stem if path.is_file() else path.name
        target = folder / (stem or Path(source).resolve().name or "clip")
        if path.is_dir() and target.resolve() == path.resolve():
            raise ValueError(f"output: {source} would hold both the source and its results; give another -o")
        if target in folders:
            raise ValueError(f"input: {folders[target]} and {source} would both be written to {target}; run them apart")
        folders[target] = source
    return list(folders)
