"""What `novel-view render` and `stereo` share once a request is checked: get the depth, then run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

from depth_engine.depth.input import DepthInput
from depth_engine.depth.source import DepthSource
from depth_engine.runs.derived_clip import ClipJob, ClipRun, Maker
from depth_engine.runs.resumable import Progress, already_finished
from depth_engine.video.probe import VideoInfo


@dataclass(frozen=True)
class ViewsPlan(ABC):
    """A checked request for views of a clip.

    Attributes:
        job: Source and outputs.
        info: Of the source.
        depth: Where it comes from.
        detect_shots: Look for cuts.
        device: Where views are made.
        settings: What the user chose, for the sidecar.
    """

    job: ClipJob
    info: VideoInfo
    depth: DepthInput
    detect_shots: bool
    device: str
    settings: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        return {**self.settings, **self.depth.identity()}

    def run(self, on_depth: Progress, on_frames: Progress) -> tuple[list[File], list[str]]:
        """Make the clip; the finished files, and notes."""
        if already_finished(self.job):
            return self.job.outputs, []
        depth = self.depth.get(on_depth)
        notes = list(self.depth.notes)
        make, found = self._maker(depth, notes)
        outputs = ClipRun(
            self.job,
            self.identity,
            make,
            settings={**self.settings, **self.depth.to_json(), **found},
            shots=depth.shots if depth.shots is not None else self.detect_shots,
            notes=notes,
            on_frames=on_frames,
        ).run()
        return outputs, notes

    @abstractmethod
    def _maker(self, depth: DepthSource, notes: list[str]) -> tuple[Maker, dict[str, Any]]:
        """What makes the views, and what depth told of the settings; notes may grow until all is made."""
