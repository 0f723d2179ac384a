"""Writing: times, sound, exactness, and files that appear only when whole."""

from __future__ import annotations

import gc
import resource
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest

from depth_engine.video.marks import Marks
from depth_engine.video.read import probe, read_frames, read_gray16
from depth_engine.video.sound import Sound
from depth_engine.video.write import Encoding, VideoWriter
from tests.clips import describe, loud_span_s, make_clip, packet_times_s, run_ffmpeg, smooth_frames


def write(path: Path, frames: list[np.ndarray], times_s: list[float] | None = None, **options: object) -> Path:
    height, width = frames[0].shape[:2]
    fps = options.pop("fps", Fraction(25))
    with VideoWriter(path, width=width, height=height, fps=fps, **options) as writer:  # type: ignore[arg-type]
        for index, frame in enumerate(frames):
            writer.write(frame, index / fps if times_s is None else times_s[index])  # type: ignore[operator]
    return path


def read(path: Path) -> np.ndarray:
    return np.stack([frame.rgb for frame in read_frames(path)])


# Times.


@pytest.mark.parametrize("rate", ["25", "30000/1001", "120000/1001", "15/2"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_even_frames_stay_even(tmp_path: Path, rate: str, suffix: str) -> None:
    fps = Fraction(rate)
    times_s = [float(index / fps) for index in range(30)]
    path = write(tmp_path / f"a.{suffix}", smooth_frames(30, 32, 32), times_s, fps=fps)
    info = probe(path)
    assert info.fps == fps and not info.notes
    assert info.duration_s == pytest.approx(30 / float(fps), abs=0.011)
    # Matroska counts in milliseconds.
    tolerance = 6e-4 if suffix == "mkv" else 1e-6
    np.testing.assert_allclose([frame.time_s for frame in read_frames(path)], times_s, atol=tolerance)


@pytest.mark.parametrize("codec", ["h264", "prores", "ffv1"])
@pytest.mark.parametrize("first_s", [0.0, 0.7])
def test_uneven_times_are_kept(tmp_path: Path, codec: str, first_s: float) -> None:
    suffix = {"h264": "mp4", "prores": "mov", "ffv1": "mkv"}[codec]
    times_s = [first_s + step for step in (0, 0.0101, 0.3, 0.3334, 2.5, 2.54)]
    path = write(tmp_path / f"a.{suffix}", smooth_frames(6, 32, 32), times_s, codec=codec)
    # Past the first frame the packets' times are those of the file, by any player.
    np.testing.assert_allclose(packet_times_s(path), np.subtract(times_s, times_s[0]), atol=1e-3)
    assert [frame.index for frame in read_frames(path)] == list(range(6))


def test_times_survive_reading_and_writing(tmp_path: Path) -> None:
    bursts = "settb=1/1000,setpts='N*N*7'"
    source = tmp_path / "vfr.mp4"
    make_clip(source, "-vf", bursts, "-fps_mode", "passthrough", "-enc_time_base", "1:1000")
    frames = list(read_frames(source))
    times_s = [frame.time_s for frame in frames]
    for suffix in ("mp4", "mkv"):
        path = write(tmp_path / f"out.{suffix}", [f.rgb for f in frames], times_s, fps=probe(source).fps)
        np.testing.assert_allclose([frame.time_s for frame in read_frames(path)], times_s, atol=1e-3)


# Pixels.


def test_lossless_h264_keeps_colours(tmp_path: Path) -> None:
    frames = smooth_frames(3, 64, 96)
    path = write(tmp_path / "a.mp4", frames, codec=Encoding(crf=0))
    info = probe(path)
    assert (info.codec, info.pixel_format, info.color_matrix) == ("h264", "yuv420p", "bt709")
    assert "yuv420p(tv, bt709" in describe(path)
    assert np.abs(read(path).astype(int) - frames).max() <= 3


def test_defaults_are_high_profile_with_the_index_in_front(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", smooth_frames(5, 64, 64))
    assert "h264 (High)" in describe(path)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert np.abs(read(path).astype(int) - smooth_frames(5, 64, 64)).mean() < 2


def test_prores(tmp_path: Path) -> None:
    frames = smooth_frames(3, 64, 96)
    path = write(tmp_path / "a.mov", frames, codec="prores")
    info = probe(path)
    assert (info.codec, info.pixel_format, info.color_matrix) == ("prores", "yuv422p10le", "bt709")
    assert "yuv422p10le(tv, bt709" in describe(path)
    assert np.abs(read(path).astype(int) - frames).max() <= 4


@pytest.mark.parametrize("size", [(16, 16), (48, 64), (37, 51), (5, 7)])
def test_ffv1_is_exact(tmp_path: Path, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    rgb = list(rng.integers(0, 256, (3, *size, 3), dtype=np.uint8))
    np.testing.assert_array_equal(read(write(tmp_path / "rgb.mkv", rgb, codec="ffv1")), rgb)
    gray = list(rng.integers(0, 65536, (3, *size), dtype=np.uint16))
    path = write(tmp_path / "gray.mkv", gray, codec=Encoding("ffv1", "gray16le"))
    np.testing.assert_array_equal(list(read_gray16(path)), gray)


def test_odd_sides_repeat_the_edge(tmp_path: Path) -> None:
    frames = smooth_frames(2, 33, 47)
    pixels = read(write(tmp_path / "a.mp4", frames, codec=Encoding(crf=0)))
    assert pixels.shape == (2, 34, 48, 3)
    expected = np.pad(frames, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    assert np.abs(pixels.astype(int) - expected).max() <= 4


def test_frames_need_not_be_contiguous(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    path = write(tmp_path / "a.mkv", [frame[:, ::-1]], codec="ffv1")
    np.testing.assert_array_equal(read(path)[0], frame[:, ::-1])


def test_wide_frames_and_pixel_shape(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", smooth_frames(1, 16, 7680), marks=Marks(Fraction(4, 3)))
    assert (probe(path).width, probe(path).frame_count, probe(path).sample_aspect) == (7680, 1, Fraction(4, 3))


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "lossless.mkv", "pro.mov"])
def test_same_frames_give_same_bytes(tmp_path: Path, name: str) -> None:
    codec = {"lossless.mkv": "ffv1", "pro.mov": "prores"}.get(name, "h264")
    sound = tmp_path / "sound.mkv"
    picture = ("-f", "lavfi", "-i", "color=s=32x32:d=1")
    run_ffmpeg(*picture, "-f", "lavfi", "-i", "sine=d=1", "-c:a", "pcm_s16le", "-frames:v", "2", sound)
    frames = smooth_frames(20, 48, 64)
    first = write(tmp_path / name, frames, codec=codec, sound=Sound(sound)).read_bytes()
    second = write(tmp_path / name, frames, codec=codec, sound=Sound(sound), overwrite=True).read_bytes()
    assert first == second


# Sound.


@pytest.fixture(scope="module")
def beeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 s of picture; silence but for a tone from 1.0 s to 1.5 s; AAC."""
    tone = "aevalsrc='0.5*sin(2*PI*1000*t)*between(t,1,1.5)':s=48000:d=3"
    path = tmp_path_factory.mktemp("sound") / "beeps.mp4"
    picture = ("-f", "lavfi", "-i", "color=s=32x32:r=25:d=3")
    run_ffmpeg(*picture, "-f", "lavfi", "-i", tone, "-c:v", "libx264", "-c:a", "aac", path)
    return path


def test_sound_is_copied(tmp_path: Path, beeps: Path) -> None:
    path = write(tmp_path / "a.mp4", smooth_frames(75, 32, 32), sound=Sound(beeps))
    np.testing.assert_allclose(packet_times_s(path, "a:0"), packet_times_s(beeps, "a:0"), atol=1e-3)
    np.testing.assert_allclose(loud_span_s(path, tmp_path), (1, 1.5), atol=0.01)
    assert probe(path).duration_s == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_trimmed_sound_stays_in_time(tmp_path: Path, beeps: Path, suffix: str) -> None:
    frames = list(read_frames(beeps, start_s=0.61, end_s=2.0))
    path = write(
        tmp_path / f"a.{suffix}",
        [frame.rgb for frame in frames],
        [frame.time_s for frame in frames],
        sound=Sound(beeps, 0.61, 2.0),
    )
    # The first frame stood at 0.64 s, the tone began at 1 s. A player may take the first thing in the file as zero.
    first_s = next(iter(read_frames(path))).time_s
    np.testing.assert_allclose(np.subtract(loud_span_s(path, tmp_path), first_s), (0.36, 0.86), atol=2e-3)
    assert probe(path).duration_s == pytest.approx(1.4, abs=0.06)


def test_late_picture_stays_late(tmp_path: Path, beeps: Path) -> None:
    times_s = [0.5 + index / 25 for index in range(20)]
    for suffix in ("mp4", "mkv"):
        path = write(tmp_path / f"a.{suffix}", smooth_frames(20, 32, 32), times_s, sound=Sound(beeps))
        # Coded sound begins a little before zero, and some versions of ffmpeg take that as the start of the file.
        read_s = [frame.time_s for frame in read_frames(path)]
        np.testing.assert_allclose(np.diff(read_s), np.diff(times_s), atol=1e-3)
        np.testing.assert_allclose(read_s[0], 0.5, atol=0.022)
        np.testing.assert_allclose(np.subtract(loud_span_s(path, tmp_path), read_s[0]), (0.5, 1), atol=2e-3)


@pytest.mark.parametrize(
    ("stored", "suffix", "written"),
    [
        ("pcm_s16le", "mp4", "aac"),
        ("pcm_s16le", "mov", "pcm_s16le"),
        ("libvorbis", "mp4", "aac"),
        ("flac", "mkv", "flac"),
    ],
)
def test_sound_that_the_container_cannot_take_becomes_aac(
    tmp_path: Path, stored: str, suffix: str, written: str
) -> None:
    source = tmp_path / "source.mkv"
    picture = ("-f", "lavfi", "-i", "color=s=32x32:r=25:d=1")
    run_ffmpeg(*picture, "-f", "lavfi", "-i", "sine=d=1", "-c:v", "libx264", "-c:a", stored, source)
    path = write(tmp_path / f"a.{suffix}", smooth_frames(25, 32, 32), sound=Sound(source))
    assert probe(path).audio_codecs == (written,)


def test_all_sound_tracks_and_none(tmp_path: Path) -> None:
    two = tmp_path / "two.mkv"
    tones = ("-f", "lavfi", "-i", "sine=d=1", "-f", "lavfi", "-i", "sine=500:d=1")
    maps = ("-map", "0", "-map", "1", "-map", "2", "-c:a:0", "aac", "-c:a:1", "pcm_s16le")
    run_ffmpeg("-f", "lavfi", "-i", "color=s=32x32:r=25:d=1", *tones, *maps, two)
    assert probe(write(tmp_path / "a.mp4", smooth_frames(5, 32, 32), sound=Sound(two))).audio_codecs == ("aac", "aac")
    silent = write(tmp_path / "silent.mp4", smooth_frames(5, 32, 32))
    assert not probe(write(tmp_path / "b.mp4", smooth_frames(5, 32, 32), sound=Sound(silent))).has_audio


# Names, and files that are whole or not there.


@pytest.mark.parametrize(
    "name", ["a b 'c' \"d\".mp4", "-dash.mp4", "100%03d.mp4", "a:b.mp4", "ünï→.mp4", "x" * 251 + ".mp4"]
)
def test_any_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path(name), smooth_frames(2, 16, 16))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert probe(name).width == 16


def test_the_name_appears_when_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, width=16, height=16, fps=25) as writer:
        writer.write(smooth_frames(1, 16, 16)[0], 0.0)
        assert not path.exists()
    assert path.exists() and len(list(tmp_path.iterdir())) == 1


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        with VideoWriter(tmp_path / "a.mp4", width=16, height=16, fps=25) as writer:
            writer.write(smooth_frames(1, 16, 16)[0], 0.0)
            raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())
    writer = VideoWriter(tmp_path / "a.mp4", width=16, height=16, fps=25)
    writer.write(smooth_frames(1, 16, 16)[0], 0.0)
    del writer
    gc.collect()
    assert not list(tmp_path.iterdir()) and not psutil.Process().children()


def test_an_existing_file_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"a\.mp4: exists"):
        VideoWriter(path, width=16, height=16, fps=25)
    write(path, smooth_frames(1, 16, 16), overwrite=True)
    assert probe(path).width == 16


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(FileExistsError):
        with VideoWriter(path, width=16, height=16, fps=25) as writer:
            writer.write(smooth_frames(1, 16, 16)[0], 0.0)
            path.write_bytes(b"mine")
    assert path.read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_a_full_disk_is_told(tmp_path: Path, codec: str) -> None:
    noise = list(np.random.default_rng(0).integers(0, 256, (40, 256, 256, 3), dtype=np.uint8))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on the size of one file: to ffmpeg as good as a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="cannot be written: .*File too large") as caught:
            write(tmp_path / "a.mkv", noise, codec=codec)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_ffmpeg_that_dies_is_told(tmp_path: Path) -> None:
    frame = np.zeros((256, 256, 3), np.uint8)
    with pytest.raises(OSError, match=r"a\.mp4: cannot be written"):
        with VideoWriter(tmp_path / "a.mp4", width=256, height=256, fps=25) as writer:
            for index in range(100):
                writer.write(frame, index / 25)
                if index == 5:
                    for child in psutil.Process().children():
                        child.kill()
    assert not list(tmp_path.iterdir())


# Arguments.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": "a.avi"}, r"output: 'a\.avi'"),
        ({"path": "a.mp4", "codec": "ffv1"}, r"\.mkv"),
        ({"codec": "vp9"}, "codec: 'vp9' is not one of h264, prores, ffv1"),
        ({"codec": Encoding(pixel_format="gray16le")}, "needs codec ffv1"),
        ({"codec": Encoding(pixel_format="rgba")}, "pixel_format: 'rgba'"),
        ({"width": 0}, "width, height: 0x16"),
        ({"fps": 0}, "fps: 0"),
        ({"codec": Encoding(crf=60)}, "crf: 60"),
    ],
)
def test_bad_arguments(tmp_path: Path, change: dict, words: str) -> None:
    options = {"path": "a.mp4", "width": 16, "height": 16, "fps": 25, **change}
    with pytest.raises(ValueError, match=words):
        VideoWriter(tmp_path / options.pop("path"), **options)


def test_sound_that_ends_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"end_s: 1.0 is not after start_s \(2.0\)"):
        Sound(tmp_path / "a.mp4", 2.0, 1.0)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        VideoWriter(tmp_path / "gone" / "a.mp4", width=16, height=16, fps=25)


def test_bad_frames_and_times(tmp_path: Path) -> None:
    good = np.zeros((16, 16, 3), np.uint8)
    with (
        pytest.raises(ValueError, match="no frame was written"),
        VideoWriter(tmp_path / "empty.mp4", width=16, height=16, fps=25),
    ):
        pass
    writer = VideoWriter(tmp_path / "a.mp4", width=16, height=16, fps=25)
    writer.write(good, 0.5)
    for time_s in (0.5, 0.2, -1, float("nan")):
        with pytest.raises(ValueError, match="time_s"):
            writer.write(good, time_s)
    for bad in (good[:8], good.astype(np.float32), good[..., 0]):
        with pytest.raises(ValueError, match=r"frame: is .* not uint8 \(16, 16, 3\)"):
            writer.write(bad, 1.0)
    writer.close()
    with pytest.raises(ValueError, match="is closed"):
        writer.write(good, 2.0)
