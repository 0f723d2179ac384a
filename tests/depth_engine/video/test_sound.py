"""Sound keeps its place against the picture, whichever container it comes from and goes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from depth_engine.video.read import probe, read_frames
from depth_engine.video.sound import Sound
from depth_engine.video.write import VideoWriter
from tests.clips import loud_span_s, run_ffmpeg

CODECS = {
    "ts": ("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"),
    "mpg": ("-c:v", "mpeg2video", "-c:a", "mp2"),
    "vob": ("-c:v", "mpeg2video", "-c:a", "ac3"),
    "ogv": ("-c:v", "libtheora", "-c:a", "libvorbis"),
    "mp4": ("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"),
}
EVENT_S, LATE_S, START_S, END_S = 1.2, 0.48, 0.8, 1.8


def flash_and_tone(path: Path, late: str) -> Path:
    """The picture turns white and a tone begins at the same moment; one of the two streams begins late."""
    picture_s, sound_s = (LATE_S if late == name else 0 for name in ("picture", "sound"))
    flash = f"color=s=32x32:r=25:d=2.2,geq=lum='if(gte(T+{picture_s},{EVENT_S}),235,16)':cb=128:cr=128"
    tone = f"aevalsrc='0.5*sin(2*PI*1000*t)*gte(t+{sound_s},{EVENT_S})':s=48000:d=2.2"
    inputs = [("-itsoffset", str(at), "-f", "lavfi", "-i", what) for at, what in ((picture_s, flash), (sound_s, tone))]
    run_ffmpeg(*inputs[0], *inputs[1], *CODECS[path.suffix[1:]], "-pix_fmt", "yuv420p", path)
    return path


@pytest.mark.parametrize("late", ["picture", "sound"])
@pytest.mark.parametrize("container", list(CODECS))
def test_picture_and_sound_keep_their_distance(tmp_path: Path, container: str, late: str) -> None:
    source = flash_and_tone(tmp_path / f"source.{container}", late)
    fps = probe(source).fps
    for name, start_s, end_s in (("whole.mkv", 0.0, None), ("part.mp4", START_S, END_S)):
        path = tmp_path / name
        with VideoWriter(path, width=32, height=32, fps=fps, sound=Sound(source, start_s, end_s)) as writer:
            for frame in read_frames(source, start_s=start_s, end_s=end_s):
                writer.write(frame.rgb, frame.time_s)
        flash_s = next(frame.time_s for frame in read_frames(path) if frame.rgb.mean() > 128)
        tone_s, silence_s = loud_span_s(path, tmp_path)
        assert tone_s == pytest.approx(flash_s, abs=0.021), (start_s, end_s)
        assert flash_s == pytest.approx(EVENT_S - start_s, abs=0.05)
        if end_s:
            assert silence_s == pytest.approx(end_s - start_s, abs=0.05)
