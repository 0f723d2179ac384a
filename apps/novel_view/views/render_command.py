"""What `novel-view render` does: check everything, get the depth, make the clip."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path as File
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from depth_engine.checks import known_name
from depth_engine.depth.input import DepthRequest, choose_depth
from depth_engine.depth.source import DepthSource
from depth_engine.geometry.cameras import Camera, intrinsics
from depth_engine.geometry.placement import Placement, fitted_frames, place, survey
from depth_engine.runs.derived_clip import ClipJob, Maker, check_clip_job
from depth_engine.runs.pieces import Piece
from depth_engine.runs.resumable import Source
from depth_engine.video.probe import DecodeError
from depth_engine.video.take import check_source
from novel_view.nerf.dataset import world_from_dataset
from novel_view.path_files import load_path, out_of_training
from novel_view.paths import PATHS, NamedPath, Path, stabilized
from novel_view.views.framing import MOST_CROP_PERCENT, Framing, least_crop_percent
from novel_view.views.plan import ViewsPlan
from novel_view.views.rendering import (
    FILLS,
    NEIGHBOURS,
    Borders,
    Fill,
    last_view,
    mask_of,
    piece_of,
    render_views,
    source_frames,
    view_camera,
    view_camera_at,
)

if TYPE_CHECKING:
    from torch import Tensor

    from depth_engine.geometry.poses import PoseResult

DEFAULT_FOV_DEG = 50.0  # vertical; a phone held level, a normal lens

MASK_HOLDS = "white where no pixel of the frame itself came to lie, before any filling"
_NOTHING_SHOWN = (
    "no frame shows anything of the clip: the camera path looks away from the scene, or lies in another world than "
    "--poses (nerfstudio's viewer saves paths in the frame that it trained in: give --transforms "
    "dataparser_transforms.json, from beside its checkpoint)"
)


def warp_device(device: str) -> str:
    """Where views are made: on the GPU if it is one of CUDA's, else by the CPU's loops.

    Raises:
        ValueError: It is unknown or absent.
    """
    from depth_engine.devices import choose_device

    chosen = choose_device(device)
    return str(chosen) if chosen.type == "cuda" else "cpu"


def fov_of(job: ClipJob, fov: float | None, focal: float | None) -> float | None:
    """The vertical field of view that was asked for, by itself or by a focal length in pixels.

    Raises:
        ValueError: Both were given, or the focal length is not above 0.
    """
    if focal is None:
        return fov
    if fov is not None:
        raise ValueError("--focal: give it or --fov, not both")
    if not (math.isfinite(focal) and focal > 0):
        raise ValueError(f"--focal: {focal:g} is not accepted; give pixels above 0")
    return math.degrees(2 * math.atan(check_source(job).height / 2 / focal))


@dataclass(frozen=True)
class Move:
    """The camera path that was asked for.

    Attributes:
        path: A path's name, `stabilize`, or a .json file.
        amplitude: As for `NamedPath`; None: its own default.
        period: Likewise.
        easing: Likewise.
        smooth: Seconds that `stabilize` averages over.
        transforms: nerfstudio's dataparser_transforms.json, for a path that its viewer saved.
    """

    path: str
    amplitude: float | None = None
    period: float | None = None
    easing: str | None = None
    smooth: float = 0.5
    transforms: File | None = None

    def camera_path(self, seed: int, poses: PoseResult | None, settings: dict[str, Any]) -> Path:
        """The path by its name or file; what decides it is noted in the settings."""
        swing = {"amplitude_percent": self.amplitude, "period_s": self.period, "easing": self.easing}
        given = {name: value for name, value in swing.items() if value is not None}
        if self._is_file or self.path == "stabilize":
            if given:
                name = next(iter(given)).removesuffix("_percent").removesuffix("_s")
                raise ValueError(f"--{name}: is for named paths ({', '.join(PATHS)}), not for --path {self.path}")
            moved = self._steadied(poses, settings) if self.path == "stabilize" else self._from_file(settings)
        else:
            moved = NamedPath(
                known_name("--path", self.path, [*PATHS, "stabilize", "a .json file"]), seed=seed, **given
            )
            settings |= {name: getattr(moved, name) for name in swing}
        return moved if self.transforms is None else self._out_of_training(moved, self.transforms, poses, settings)

    @property
    def _is_file(self) -> bool:
        return self.path.lower().endswith(".json")

    def _steadied(self, poses: PoseResult | None, settings: dict[str, Any]) -> Path:
        if poses is None:
            raise ValueError("--poses: is missing")
        settings["smooth_s"] = self.smooth
        return stabilized(poses.world_from_camera, poses.times_s, self.smooth)

    def _from_file(self, settings: dict[str, Any]) -> Path:
        file = File(self.path)
        settings["path_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None
        return load_path(file)

    def _out_of_training(self, moved: Path, file: File, poses: PoseResult | None, settings: dict[str, Any]) -> Path:
        if poses is None:
            raise ValueError("--poses: is missing; --transforms needs the cameras that the data set was made with")
        if not (self._is_file and moved(0.0).in_world):
            raise ValueError(f"--transforms: is for camera paths of nerfstudio's viewer, not for --path {self.path}")
        settings["transforms_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None
        return out_of_training(moved, file, world_from_dataset(poses))


@dataclass(frozen=True)
class Scene:
    """What is known of lens and space.

    Attributes:
        fov: Vertical field of view of the clip, degrees; None: the default.
        near: Distance of the nearest depth value; None: see `placement`.
        far: Distance of the farthest.
        poses: File of the clip's cameras; it says the other three.
    """

    fov: float | None = None
    near: float | None = None
    far: float | None = None
    poses: File | None = None

    def held(self) -> PoseResult | None:
        """The cameras of the file."""
        intrinsics(self.fov_deg, 2, 2)
        if self.poses is None:
            return None
        from depth_engine.geometry.poses import load_poses

        if (self.fov, self.near, self.far) != (None, None, None):
            raise ValueError("--fov, --near, --far: the poses say them already; leave them out")
        return load_poses(self.poses)

    @property
    def fov_deg(self) -> float:
        """Vertical field of view, degrees."""
        return DEFAULT_FOV_DEG if self.fov is None else self.fov


@dataclass(frozen=True)
class Look:
    """How views are made.

    Attributes:
        fill: What becomes of holes: `none`, `spatial`, `temporal`.
        borders: What is done to depth borders.
        framing: How much of the view the frame shows.
    """

    fill: str = "spatial"
    borders: Borders = Borders()
    framing: Framing = Framing()


@dataclass(frozen=True)
class RenderPlan(ViewsPlan):
    """`novel-view render`, checked.

    Attributes:
        path: Where the camera goes.
        scene: Lens and space.
        poses: Of the clip, if given.
        look: How views are made.
    """

    path: Path
    scene: Scene
    poses: PoseResult | None
    look: Look

    def _maker(self, depth: DepthSource, notes: list[str]) -> tuple[Maker, dict[str, Any]]:
        placement = self._placement(depth)
        facts = survey(depth, placement)
        if facts.odd:
            notes.append(
                f"depth of {facts.odd} frames has values that are not finite or not before the camera: left out"
            )
        if placement.by == "default":
            notes.append(
                "relative depth was placed by default: nearest 1, farthest 10, in a unit of its own; "
                "--near and --far say otherwise"
            )
        found: dict[str, Any] = {"placement": placement.to_json(), "median_depth": round(facts.median, 6)}
        look = self.look
        if look.framing.crop_percent is None:
            framing, note = self._least_framing(depth, placement, facts.median)
            look = replace(look, framing=framing)
            found["crop_percent"] = framing.crop_percent
            notes.append(note)

        def make(clip: Source, first: int, state: dict[str, Tensor]) -> Iterator[Piece]:
            shown = _has_shown(state)
            for piece in self._make(look, depth, placement, facts.median, clip, first, state):
                shown = _has_shown(piece.state)
                yield piece
            if not shown:
                notes.append(_NOTHING_SHOWN)

        return make, found

    def _placement(self, depth: DepthSource) -> Placement:
        if self.poses is not None:
            return self.poses.placement
        return place(depth.kind, self.scene.near, self.scene.far)

    def _camera_of(self) -> Callable[[int], Camera]:
        """The camera of a frame."""
        if self.poses is not None:
            return self.poses.camera
        height, width = self.info.height, self.info.width
        K = intrinsics(self.scene.fov_deg, height, width, self.info.sample_aspect)
        camera = Camera(K, np.eye(4), height, width)
        return lambda index: camera

    def _least_framing(self, depth: DepthSource, placement: Placement, median: float) -> tuple[Framing, str]:
        """The least crop that leaves no border in any frame, and a note on it; this reads the clip once more."""
        camera_of = self._camera_of()

        def views() -> Iterator[tuple[np.ndarray, Camera, Camera]]:
            # The run itself tells where the clip breaks off.
            with closing(depth.open()) as held, suppress(DecodeError):  # type: ignore[type-var]
                for frame, values in zip(self.job.frames(), held, strict=False):
                    source = camera_of(frame.index)
                    target = view_camera_at(frame.time_s, source, self.path, median)
                    yield placement.depth(values), source, target

        needed = least_crop_percent(views())
        found = math.ceil(min(needed, MOST_CROP_PERCENT) * 10) / 10
        note = f"--crop auto: {found:g} % of each side are cut"
        if needed > MOST_CROP_PERCENT:
            note += ", the most that is; some frames would need more, and show filled borders: lower --amplitude"
        return Framing(found), note

    def _make(
        self,
        look: Look,
        depth: DepthSource,
        placement: Placement,
        median: float,
        clip: Source,
        first: int,
        state: dict[str, Tensor],
    ) -> Iterator[Piece]:
        import torch

        height, width = self.info.height, self.info.width
        camera_of = self._camera_of()
        back = NEIGHBOURS if look.fill == "temporal" else 0
        with closing(depth.open()) as values:  # type: ignore[type-var]
            placed = (placement.depth(frame) for frame in fitted_frames(values, height, width))
            frames = source_frames(
                clip.frames(),
                placed,
                camera_of,
                borders=look.borders,
                first=max(0, first - back),
            )
            views = render_views(
                frames,
                lambda frame: look.framing.camera(view_camera(frame, self.path, median)),
                cast(Fill, look.fill),
                first,
                last_view(state),
                device=self.device,
            )
            shown = _has_shown(state)
            for _, view, opened in views:
                shown |= not opened.all()
                piece = piece_of(view.rgb, view, {"mask": mask_of(opened)} if "mask" in self.job.companions else {})
                yield piece._replace(state={**piece.state, "shown": torch.tensor(shown)})


def _has_shown(state: dict[str, Tensor]) -> bool:
    """Whether a frame up to here showed anything of the clip."""
    return "shown" in state and bool(state["shown"])


def plan_render(job: ClipJob, move: Move, scene: Scene, look: Look, depth: DepthRequest) -> RenderPlan:
    """Check all that can be checked before anything heavy loads.

    Raises:
        ValueError: Names the option, the value and what is accepted.
        OSError: A file is missing or in the way.
    """
    known_name("--fill", look.fill, FILLS)
    if scene.poses is None and (move.path == "stabilize" or look.fill == "temporal"):
        wish = "--path stabilize" if move.path == "stabilize" else "--fill temporal"
        raise ValueError(f"--poses: is missing; {wish} needs the clip's cameras: novel-view poses INPUT -o poses.json")
    held = scene.held()
    settings: dict[str, Any] = {
        "path": move.path,
        "fill": look.fill,
        **asdict(look.borders),
        **asdict(look.framing),
        "shots": depth.shots,
        "seed": depth.seed,
    }
    if held is None:
        settings["fov_deg"] = scene.fov_deg
    if "mask" in job.companions:
        settings["mask"] = MASK_HOLDS
    camera_path = move.camera_path(depth.seed, held, settings)
    info = check_source(job)
    if held is not None and (held.height, held.width) != (info.height, info.width):
        raise ValueError(
            f"--poses: {scene.poses} are of a clip of {held.width}x{held.height}, this one is "
            f"{info.width}x{info.height}"
        )
    choice = choose_depth(depth, job, info, job.output)
    if held is None:
        place(choice.kind, scene.near, scene.far)
    where = warp_device(depth.device)
    poses = None if scene.poses is None else str(scene.poses)
    settings |= {"near": scene.near, "far": scene.far, "poses": poses, "device": where}
    plan = RenderPlan(
        job=job,
        info=info,
        depth=choice,
        path=camera_path,
        scene=scene,
        poses=held,
        look=look,
        detect_shots=depth.shots,
        device=where,
        settings=settings,
    )
    check_clip_job(job, plan.identity)
    return plan
