"""Reading: every kind of source, times, trims, damage and bad input."""

from __future__ import annotations

import gc
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from depth_engine.video.probe import DecodeError, VideoError
from depth_engine.video.read import expand_inputs, probe, read_frames, read_gray16
from depth_engine.video.take import Take
from tests.clips import cut_off, footage, make_clip, packet_times_s, run_ffmpeg


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    """64x48, 50 frames at 25 fps, B-frames, a key frame every 10."""
    return make_clip(folder / "clip.mp4", "-pix_fmt", "yuv420p", "-bf", "2", "-g", "10", frames=50)


@pytest.fixture(scope="module")
def bikes(folder: Path) -> Path:
    """Real footage with its index in front."""
    run_ffmpeg("-i", footage("bikes.mp4"), "-c", "copy", "-movflags", "+faststart", folder / "bikes.mp4")
    return folder / "bikes.mp4"


@pytest.fixture(scope="module")
def bikes_frames(bikes: Path) -> list[np.ndarray]:
    return [frame.rgb for frame in read_frames(bikes)]


def times_s(source: Path, **trim: float) -> list[float]:
    return [frame.time_s for frame in read_frames(source, **trim)]  # type: ignore[arg-type]


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


# What a clip is.


def test_probe_tells_facts(clip: Path) -> None:
    info = probe(clip)
    assert (info.kind, info.width, info.height, info.fps, info.codec) == ("video", 64, 48, 25, "h264")
    assert (info.frame_count, info.frame_count_exact, info.duration_s) == (50, False, 2.0)
    assert (info.bit_depth, info.has_alpha, info.has_audio, info.is_hdr, info.notes) == (8, False, False, False, ())


def test_all_frames_are_read_with_their_times(clip: Path) -> None:
    frames = list(read_frames(clip))
    assert [frame.index for frame in frames] == list(range(50))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(50) / 25, atol=1e-9)
    assert all(frame.rgb.shape == (48, 64, 3) and frame.rgb.dtype == np.uint8 for frame in frames)


@pytest.mark.parametrize("size", ["16x16", "67x49", "7680x16"])
def test_any_size(folder: Path, size: str) -> None:
    width, height = map(int, size.split("x"))
    shape = ("-vf", f"scale={width}:{height}")
    path = make_clip(folder / f"{size}.mkv", "-c:v", "ffv1", "-pix_fmt", "bgr0", *shape, frames=1)
    (frame,) = read_frames(path)
    assert frame.rgb.shape == (height, width, 3)
    # ffmpeg's own picture of it: the same pixels.
    run_ffmpeg("-i", path, folder / "frame.png")
    np.testing.assert_array_equal(frame.rgb, np.asarray(Image.open(folder / "frame.png").convert("RGB")))


def test_odd_size_with_subsampled_colour(folder: Path) -> None:
    path = make_clip(folder / "odd.mkv", "-c:v", "ffv1", "-pix_fmt", "yuv420p", "-vf", "scale=67:49", frames=2)
    assert [frame.rgb.shape for frame in read_frames(path)] == [(49, 67, 3)] * 2


@pytest.mark.parametrize("rate", ["30000/1001", "24000/1001", "60000/1001", "24", "50", "25/2"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_exact_frame_rate(folder: Path, rate: str, suffix: str) -> None:
    path = make_clip(folder / f"rate.{suffix}", rate=rate, frames=20)
    assert probe(path).fps == Fraction(rate)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rate_keeps_times(folder: Path, suffix: str) -> None:
    path = folder / f"vfr.{suffix}"
    # Squares of the frame's number in hundredths of a second.
    squares = "settb=1/1000,setpts='N*N*10'"
    make_clip(path, "-vf", squares, "-fps_mode", "passthrough", "-enc_time_base", "1:1000", frames=13)
    # ffmpeg 7 writes a last frame of no length, which mp4 then does not show.
    expected = [index**2 / 100 for index in range(12)]
    np.testing.assert_allclose(packet_times_s(path)[:12], expected, atol=1e-3)
    np.testing.assert_allclose(times_s(path)[:12], expected, atol=1e-3)
    if suffix == "mp4":
        assert any("variable frame rate" in note for note in probe(path).notes)


def test_late_start_is_kept(folder: Path, clip: Path) -> None:
    path = folder / "late.mkv"
    run_ffmpeg(
        "-itsoffset", "0.5", "-i", clip, "-f", "lavfi", "-i", "sine=d=2", "-c:v", "copy", "-c:a", "pcm_s16le", path
    )
    np.testing.assert_allclose(times_s(path)[:3], [0.5, 0.54, 0.58], atol=2e-3)


def test_streams_without_times_and_counts(folder: Path, clip: Path) -> None:
    run_ffmpeg("-i", clip, "-c", "copy", "-f", "h264", folder / "raw.h264")
    info = probe(folder / "raw.h264")
    assert (info.frame_count, info.duration_s, info.fps) == (None, None, 25)
    np.testing.assert_allclose(times_s(folder / "raw.h264"), np.arange(50) / 25, atol=0.1)
    live = folder / "live.mkv"
    # Matroska as it is written to a pipe: no duration.
    run_ffmpeg("-i", clip, "-c", "copy", "-live", "1", live)
    assert probe(live).frame_count is None
    assert len(times_s(live)) == 50


# What the pixels are.


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_is_applied(folder: Path, clip: Path, turn: int) -> None:
    path = folder / f"turned{turn}.mp4"
    # The option turns counter-clockwise.
    run_ffmpeg("-display_rotation", str(-turn), "-i", clip, "-c", "copy", path)
    info = probe(path)
    assert info.rotation_deg == turn and f"turned {turn} degrees clockwise, as its metadata asks" in info.notes
    assert (info.width, info.height) == ((64, 48) if turn == 180 else (48, 64))
    upright, turned = next(iter(read_frames(clip))).rgb, next(iter(read_frames(path))).rgb
    difference = np.abs(np.rot90(upright, -turn // 90).astype(int) - turned)
    assert difference.mean() < 2


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
def test_tagged_colours(folder: Path, matrix: str) -> None:
    assert_plain_colours(folder, "128x64", matrix, ("-colorspace", matrix))


def test_untagged_colours_go_by_size(folder: Path) -> None:
    assert_plain_colours(folder, "128x64", "smpte170m", ())
    assert_plain_colours(folder, "1280x720", "bt709", ())


def assert_plain_colours(folder: Path, size: str, matrix: str, tags: tuple[str, ...]) -> None:
    for color in [(200, 60, 40), (30, 180, 90)]:
        path = folder / "color.mkv"
        convert = f"scale=out_color_matrix={matrix}:out_range=tv,format=yuv420p"
        untagged = [] if tags else ["-bsf:v", "h264_metadata=matrix_coefficients=2"]
        picture = "color=0x{:02x}{:02x}{:02x}:s={}:r=5,format=rgb24".format(*color, size)
        encode = ["-frames:v", "1", "-vf", convert, "-c:v", "libx264", "-crf", "0", *tags, *untagged]
        run_ffmpeg("-f", "lavfi", "-i", picture, *encode, path)
        assert probe(path).color_matrix == (matrix if tags else "unknown")
        (frame,) = read_frames(path)
        assert np.abs(frame.rgb.astype(int) - color).max() <= 3


@pytest.mark.parametrize(("pixel_format", "bits"), [("yuv420p10le", 10), ("yuv422p12le", 12), ("gbrp10le", 10)])
def test_deep_colour_is_reduced(folder: Path, clip: Path, pixel_format: str, bits: int) -> None:
    path = folder / f"{pixel_format}.mkv"
    run_ffmpeg("-i", clip, "-frames:v", "3", "-c:v", "ffv1", "-pix_fmt", pixel_format, path)
    info = probe(path)
    assert info.bit_depth == bits and f"{bits}-bit reduced to 8-bit" in info.notes
    pairs = zip(read_frames(clip, max_frames=3), read_frames(path), strict=True)
    assert all(np.abs(a.rgb.astype(int) - b.rgb).mean() < 2 for a, b in pairs)


@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_hdr_is_tone_mapped(folder: Path, transfer: str, name: str) -> None:
    path = folder / f"{name}.mkv"
    tags = ["-color_trc", transfer, "-color_primaries", "bt2020", "-colorspace", "bt2020nc", "-color_range", "tv"]
    # Code values from black to white: in PQ up to 10000 cd/m2.
    ramp = "color=black:s=64x32,format=yuv420p10le,geq=lum='64+X*876/63':cb=512:cr=512"
    params = f"setparams=color_trc={transfer}:color_primaries=bt2020:colorspace=bt2020nc:range=tv"
    run_ffmpeg("-f", "lavfi", "-i", ramp, "-frames:v", "1", "-vf", params, "-c:v", "ffv1", *tags, path)
    info = probe(path)
    assert info.is_hdr and any(note.startswith(f"HDR ({name})") for note in info.notes)
    if "HDR" in str(info.notes) and "not tone-mapped" in str(info.notes):
        pytest.skip("this ffmpeg has no zscale filter")
    (frame,) = read_frames(path)
    grey = frame.rgb[16].astype(int)
    assert np.abs(grey - grey.mean(axis=1, keepdims=True)).max() <= 2
    assert (np.diff(grey[:, 0]) >= -1).all() and grey[0, 0] <= 3 and grey[-1, 0] >= 200
    if name == "PQ":
        # A tone curve, not the codes as they stand: code 50 % is 92 cd/m2, nearly diffuse white, not mid-grey.
        assert grey[32, 0] > 140


@pytest.mark.parametrize(
    ("matrix", "primaries"), [("unknown", "unknown"), ("unknown", "bt2020"), ("bt2020nc", "unknown")]
)
def test_untagged_hdr_is_taken_as_bt2020(tmp_path: Path, matrix: str, primaries: str) -> None:
    def clip_with(matrix: str, primaries: str) -> Path:
        path = tmp_path / f"{matrix}-{primaries}.mkv"
        params = f"setparams=color_trc=smpte2084:color_primaries={primaries}:colorspace={matrix}:range=tv"
        run_ffmpeg(
            *("-f", "lavfi", "-i", "testsrc2=s=64x32,format=yuv420p10le", "-frames:v", "1"),
            *("-vf", params, "-c:v", "ffv1", path),
        )
        return path

    path = clip_with(matrix, primaries)
    if "not tone-mapped" in str(probe(path).notes):
        pytest.skip("this ffmpeg has no zscale filter")
    assert any("taken as BT.2020" in note for note in probe(path).notes)
    (tagged,), (assumed,) = read_frames(clip_with("bt2020nc", "bt2020")), read_frames(path)
    np.testing.assert_array_equal(assumed.rgb, tagged.rgb)


@pytest.mark.parametrize("codec", ["png", "qtrle"])
def test_alpha_is_dropped_with_a_note(folder: Path, codec: str) -> None:
    path = folder / f"{codec}.mov"
    half = "color=red@0.5:s=32x32:r=5,format=rgba"
    run_ffmpeg("-f", "lavfi", "-i", half, "-frames:v", "2", "-c:v", codec, path)
    info = probe(path)
    assert info.has_alpha and "alpha dropped" in info.notes
    for frame in read_frames(path):
        assert np.abs(frame.rgb.astype(int) - (254, 0, 0)).max() <= 3


def test_gray16_is_read_bit_exact(folder: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 65536, (3, 17, 23), dtype=np.uint16)
    raw = ("-f", "rawvideo", "-pix_fmt", "gray16le", "-s", "23x17", "-i", "-")
    run_ffmpeg(*raw, "-c:v", "ffv1", folder / "gray.mkv", stdin=frames.tobytes())
    np.testing.assert_array_equal(np.stack(list(read_gray16(folder / "gray.mkv"))), frames)


def test_gray16_of_a_colour_video_is_refused(clip: Path) -> None:
    with pytest.raises(VideoError, match="gray16le"):
        read_gray16(clip)


# Trims and rates.


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
@pytest.mark.parametrize("start_s", [0.02, 0.4, 1.25])
def test_trim_gives_the_same_frames(folder: Path, clip: Path, suffix: str, start_s: float) -> None:
    path = folder / f"trim.{suffix}"
    run_ffmpeg("-i", clip, "-c", "copy", path)
    whole = [frame for frame in read_frames(path) if start_s <= frame.time_s + 1e-6 and frame.time_s < 1.7 - 1e-6]
    part = list(read_frames(path, start_s=start_s, end_s=1.7))
    assert [frame.index for frame in part] == list(range(len(whole)))
    np.testing.assert_allclose([f.time_s for f in part], [max(0, f.time_s - start_s) for f in whole], atol=1e-6)
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(part, whole, strict=True))


def test_trim_may_start_on_a_frame(clip: Path) -> None:
    np.testing.assert_allclose(times_s(clip, start_s=0.4, end_s=0.52), [0, 0.04, 0.08], atol=1e-6)


def test_max_frames(clip: Path) -> None:
    assert len(times_s(clip, max_frames=7)) == 7
    assert len(times_s(clip, max_frames=1000)) == 50


def test_lower_rate_keeps_nearest_frames(clip: Path) -> None:
    # Ticks at 0, 143, 286, 429, 571 ms; frames at multiples of 40 ms.
    np.testing.assert_allclose(times_s(clip, fps=7, max_frames=5), [0, 0.16, 0.28, 0.44, 0.56], atol=1e-6)
    assert [len(times_s(clip, fps=fps)) for fps in (1, 5, 12.5)] == [2, 10, 25]


def test_higher_rate_keeps_all(clip: Path) -> None:
    assert len(times_s(clip, fps=60)) == 50
    assert len(times_s(clip, fps=25)) == 50


def test_lower_rate_of_uneven_frames_never_repeats(folder: Path) -> None:
    path = folder / "sparse.mp4"
    # A burst at 100 per second, a second of nothing, a burst.
    bursts = "settb=1/1000,setpts='N*10+1000*gte(N,6)'"
    make_clip(path, "-vf", bursts, "-fps_mode", "passthrough", "-enc_time_base", "1:1000")
    # On average 10 per second. Ticks at 200 and 400 ms are nearest to 50, those at 600 to 1000 nearest to 1060.
    np.testing.assert_allclose(times_s(path, fps=5), [0, 0.05, 1.06], atol=1e-6)


@pytest.mark.parametrize(
    ("trim", "words"),
    [
        ({"start_s": -1}, "start_s: -1"),
        ({"start_s": 1, "end_s": 1}, "end_s: 1"),
        ({"max_frames": 0}, "max_frames: 0"),
        ({"fps": 0}, "fps: 0"),
        ({"start_s": 60}, "start_s: 60 lies after its end at 2 s"),
    ],
)
def test_bad_trims_are_refused_at_once(clip: Path, trim: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_frames(clip, **trim)


def test_a_range_between_frames_is_no_empty_clip(clip: Path) -> None:
    with pytest.raises(VideoError, match=r"no frame lies between 0\.01 s and 0\.03 s"):
        list(read_frames(clip, start_s=0.01, end_s=0.03))


def two_streams(path: Path, default: str) -> Path:
    """Red, 32x24, and blue, 64x48; `default`: the dispositions of both."""
    inputs = [part for look in ("red:s=32x24", "blue:s=64x48") for part in ("-f", "lavfi", "-i", f"color={look}:r=10")]
    first, second = default.split()
    options = ("-map", "0", "-map", "1", "-frames:v", "3", "-c:v", "ffv1", "-pix_fmt", "bgr0")
    run_ffmpeg(*inputs, *options, "-disposition:v:0", first, "-disposition:v:1", second, path)
    return path


@pytest.mark.parametrize(("default", "best"), [("0 default", 1), ("default 0", 0), ("0 0", 1), ("default default", 1)])
def test_the_default_stream_is_read_or_the_largest(tmp_path: Path, default: str, best: int) -> None:
    path = two_streams(tmp_path / "two.mkv", default)
    info = probe(path)
    assert (info.stream, info.width) == (best, (32, 64)[best])
    assert any(f"stream {best} is read" in note and "--stream" in note for note in info.notes)
    colours = ([255, 0, 0], [0, 0, 255])
    for stream, wanted in ((None, best), (0, 0), (1, 1)):
        take = Take(path, stream=stream)
        assert take.info().stream == wanted
        frames = list(take.frames())
        assert len(frames) == 3 and np.abs(frames[0].rgb[0, 0].astype(int) - colours[wanted]).max() <= 2


def test_a_stream_that_is_not_there(tmp_path: Path) -> None:
    path = two_streams(tmp_path / "two.mkv", "default 0")
    with pytest.raises(VideoError, match="two.mkv: stream: 2 is not one of .* which are 0 .*32x24.*; 1 "):
        probe(path, stream=2)
    save_images(tmp_path / "s", ["1.png"])
    with pytest.raises(VideoError, match="stream: 0 is not accepted; images have no streams"):
        probe(tmp_path / "s", stream=0)


# Names and image sequences.


@pytest.mark.parametrize(
    "name", ["a b 'c' \"d\".mp4", "-dash.mp4", "100%03d.mp4", "a:b;c&d.mp4", "ünï→.mp4", "[x]*.mp4"]
)
def test_any_name(tmp_path: Path, clip: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert probe(name).frame_count == 50
    assert len(list(read_frames(name, max_frames=2))) == 2
    assert expand_inputs([name]) == ([Path(name)], [])


def save_images(folder: Path, names: list[str], size: tuple[int, int] = (20, 10)) -> None:
    folder.mkdir(exist_ok=True)
    for value, name in enumerate(names):
        Image.new("RGB", size, (value * 10, 0, 0)).save(folder / name)


def reds(source: str | Path) -> list[int]:
    return [int(frame.rgb[0, 0, 0]) for frame in read_frames(source)]


def test_folder_of_images_in_natural_order(tmp_path: Path) -> None:
    save_images(tmp_path / "seq", ["f1.png", "f2.bmp", "f10.png"])
    (tmp_path / "seq" / "notes.txt").write_text("not a frame")
    info = probe(tmp_path / "seq")
    assert (info.kind, info.width, info.height, info.fps) == ("sequence", 20, 10, 24)
    assert (info.frame_count, info.frame_count_exact) == (3, True)
    assert reds(tmp_path / "seq") == [0, 10, 20]
    np.testing.assert_allclose(times_s(tmp_path / "seq"), [0, 1 / 24, 2 / 24])


def test_pattern_starts_at_any_number(tmp_path: Path) -> None:
    save_images(tmp_path / "s", ["f00099.png", "f00100.png", "f00103.png"])
    save_images(tmp_path / "s", ["other.png"], size=(7, 7))
    pattern = f"{tmp_path}/s/f%05d.png"
    assert reds(pattern) == [0, 10, 20]
    assert probe(pattern, 25).notes == ("2 numbers missing between 99 and 103: closed up",)
    assert expand_inputs([pattern]) == ([pattern], [])


def test_a_sequence_has_the_rate_that_is_given(tmp_path: Path) -> None:
    save_images(tmp_path / "s", [f"{index:03d}.png" for index in range(24)])
    frames = list(read_frames(tmp_path / "s", start_s=0.5, end_s=1.0, fps=6))
    assert [int(frame.rgb[0, 0, 0]) for frame in frames] == [30, 40, 50]
    np.testing.assert_allclose([frame.time_s for frame in frames], [0, 1 / 6, 2 / 6])
    take = Take(tmp_path / "s", fps=29.97)
    assert take.info().fps == take.rate(take.info()) == Fraction(30000, 1001)
    assert take.expected_frames(take.info()) == 24 and take.info().notes == ()
    (note,) = probe(tmp_path / "s").notes
    assert "24 frames per second (--fps" in note


def test_image_formats(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # Soft, so that JPEG keeps it.
    rgb = np.repeat(np.repeat(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8), 16, 0), 16, 1)
    for suffix in ["png", "jpg", "tiff", "webp", "bmp"]:
        Image.fromarray(rgb).save(tmp_path / f"a.{suffix}", quality=95)
        (frame,) = read_frames(tmp_path / f"a.{suffix}")
        assert np.abs(frame.rgb.astype(int) - rgb).mean() < (6 if suffix in ("jpg", "webp") else 1e-9)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_images_are_scaled(tmp_path: Path, suffix: str) -> None:
    grey = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / f"g.{suffix}")
    (frame,) = read_frames(tmp_path / f"g.{suffix}")
    np.testing.assert_array_equal(frame.rgb[0, :, 0], [0, 1, 128, 255])
    assert "16-bit reduced to 8-bit" in probe(tmp_path / f"g.{suffix}").notes


def test_exif_rotation_of_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert (probe(tmp_path / "a.jpg").width, probe(tmp_path / "a.jpg").height) == (10, 20)
    assert [frame.rgb.shape for frame in read_frames(tmp_path / "a.jpg")] == [(20, 10, 3)]


def test_inputs_are_expanded(tmp_path: Path, clip: Path) -> None:
    save_images(tmp_path / "seq", ["1.png"])
    (tmp_path / "videos").mkdir()
    for name in ["v10.mp4", "v9.mp4", ".hidden.mp4"]:
        (tmp_path / "videos" / name).write_bytes(clip.read_bytes())
    (tmp_path / "videos" / "poster.jpg").write_bytes(b"")
    expanded, notes = expand_inputs([tmp_path / "seq", tmp_path / "videos", clip])
    assert expanded == [tmp_path / "seq", tmp_path / "videos" / "v9.mp4", tmp_path / "videos" / "v10.mp4", clip]
    assert notes == [f"{tmp_path / 'videos'}: not read: poster.jpg"]


# Bad input: one clear line, before any frame.


def one_line(source: str | Path) -> str:
    with pytest.raises(VideoError) as caught:
        probe(source)
    with pytest.raises(VideoError):
        read_frames(source)
    text = str(caught.value)
    assert "\n" not in text and Path(str(source)).name in text
    return text


def test_no_such_file(tmp_path: Path) -> None:
    assert "no such file" in one_line(tmp_path / "gone.mp4")
    assert "no file fits" in one_line(f"{tmp_path}/%03d.png")
    with pytest.raises(VideoError, match="no such file"):
        expand_inputs([tmp_path / "gone.mp4"])


def test_a_file_that_changed_is_asked_again(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    shutil.copy(clip, path)
    assert probe(path).width == probe(clip).width
    path.write_bytes(b"no longer a video")
    assert "clip.mp4" in one_line(path)


def test_empty_folder(tmp_path: Path) -> None:
    assert "without images or videos" in one_line(tmp_path)
    with pytest.raises(VideoError, match="without images or videos"):
        expand_inputs([tmp_path])


def test_folder_of_videos_is_no_clip(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes())
    assert "name one of them" in one_line(tmp_path)


def test_images_of_differing_sizes(tmp_path: Path) -> None:
    save_images(tmp_path / "s", ["1.png", "2.png"])
    save_images(tmp_path / "s", ["3.png"], size=(22, 10))
    with pytest.raises(VideoError, match=r"3\.png: is 22x10 but 1\.png is 20x10"):
        probe(tmp_path / "s")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.mp4", b"These are only words.\n" * 100, "not a video"),
        ("text.txt", b"These are only words.\n" * 100, "text, not a video"),
        ("zero.mp4", b"", "empty"),
        ("zero.png", b"", "empty"),
        ("text.png", b"These are only words.\n", "not an image"),
        ("noise.mkv", bytes(range(256)) * 50, "not a video"),
    ],
)
def test_files_that_are_no_pictures(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert words in one_line(tmp_path / name)


def test_sound_alone(tmp_path: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", tmp_path / "sound.m4a")
    assert "sound but no picture" in one_line(tmp_path / "sound.m4a")
    cover = ("-f", "lavfi", "-i", "color=red:s=32x32", "-frames:v", "1", "-disposition:v", "attached_pic")
    run_ffmpeg("-i", tmp_path / "sound.m4a", *cover, "-map", "0", "-map", "1", tmp_path / "cover.mp3")
    assert "sound but no picture" in one_line(tmp_path / "cover.mp3")


@pytest.mark.parametrize("source", ["http://127.0.0.1:9/a.mp4", Path("https://127.0.0.1/a.mp4"), "rtsp://127.0.0.1/a"])
def test_addresses_are_refused(source: str | Path) -> None:
    assert "is an address" in one_line(source)
    with pytest.raises(VideoError, match="is an address"):
        expand_inputs([source])


def test_playlists_cannot_reach_out(tmp_path: Path) -> None:
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile 'http://127.0.0.1:9/a.mp4'\n")
    assert "refers to an address" in one_line(tmp_path / "list.m3u8")
    assert "refers to an address" in one_line(tmp_path / "list.ffconcat")


# Damage on the way.


def read_until_damage(path: Path) -> tuple[list[np.ndarray], DecodeError]:
    frames: list[np.ndarray] = []
    with pytest.raises(DecodeError) as caught:
        for frame in read_frames(path):
            frames.append(frame.rgb)
    assert caught.value.frame_index == len(frames)
    assert f"frame {len(frames)} " in str(caught.value) and "\n" not in str(caught.value)
    return frames, caught.value


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_truncated_file(tmp_path: Path, bikes: Path, bikes_frames: list[np.ndarray], suffix: str) -> None:
    whole = tmp_path / f"whole.{suffix}"
    run_ffmpeg("-i", bikes, "-c", "copy", "-movflags", "+faststart", whole)
    frames, _ = read_until_damage(cut_off(whole, tmp_path / f"cut.{suffix}", 0.6))
    assert 120 < len(frames) < 180
    assert all(np.array_equal(a, b) for a, b in zip(frames, bikes_frames, strict=False))


@pytest.mark.parametrize("share", [0.5, 0.71, 0.93])
def test_truncated_anywhere_gives_only_whole_frames_in_order(tmp_path: Path, clip: Path, share: float) -> None:
    run_ffmpeg("-i", clip, "-c", "copy", "-movflags", "+faststart", tmp_path / "whole.mp4")
    original = [frame.rgb for frame in read_frames(clip)]
    frames, _ = read_until_damage(cut_off(tmp_path / "whole.mp4", tmp_path / "cut.mp4", share))
    assert all(np.array_equal(a, b) for a, b in zip(frames, original, strict=False))


def test_truncated_before_the_index(tmp_path: Path, clip: Path) -> None:
    assert "moov atom not found" in one_line(cut_off(clip, tmp_path / "cut.mp4", 0.6))


def test_damage_in_the_middle(tmp_path: Path, bikes: Path, bikes_frames: list[np.ndarray]) -> None:
    data = bytearray(bikes.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    (tmp_path / "damaged.mp4").write_bytes(data)
    frames, _ = read_until_damage(tmp_path / "damaged.mp4")
    assert 90 < len(frames) < 140
    assert all(np.array_equal(a, b) for a, b in zip(frames, bikes_frames, strict=False))


def test_damage_at_a_lower_rate_counts_kept_frames(tmp_path: Path, bikes: Path) -> None:
    path = cut_off(bikes, tmp_path / "cut.mp4", 0.6)
    count = 0
    with pytest.raises(DecodeError) as caught:
        for frame in read_frames(path, fps=5):
            count = frame.index + 1
    assert caught.value.frame_index == count and 24 <= count <= 36


def test_damaged_image_in_a_sequence(tmp_path: Path) -> None:
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index}.png")
    cut_off(tmp_path / "1.png", tmp_path / "1.png", 0.5)
    frames, error = read_until_damage(tmp_path)
    assert len(frames) == 1 and "1.png" in str(error)


def test_real_footage_has_no_false_alarm(bikes_frames: list[np.ndarray]) -> None:
    assert len(bikes_frames) == 250
    bunny = footage("bigbuckbunny.mp4")
    assert probe(bunny).audio_codecs == ("aac",)
    assert len(list(read_frames(bunny, start_s=3))) == 132 - 75


PACKET = 188  # bytes of an MPEG transport stream's packets


@pytest.fixture(scope="module")
def transport_stream(folder: Path) -> tuple[bytearray, list[list[int]]]:
    """50 frames, and for each the offsets of its packets."""
    path = folder / "stream.ts"
    make_clip(path, "-c:v", "libx264", "-g", "10", "-bf", "0", size="320x240", frames=50)
    data = bytearray(path.read_bytes())
    frames: list[list[int]] = []
    for at in range(0, len(data), PACKET):
        if int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF == 0x100:
            if data[at + 1] & 0x40:
                frames.append([])
            frames[-1].append(at)
    return data, frames


@pytest.mark.parametrize("suspicion", ["counter", "flag"])
def test_a_suspicion_of_the_demuxer_is_no_damage(
    tmp_path: Path, transport_stream: tuple[bytearray, list[list[int]]], suspicion: str
) -> None:
    data, frames = bytearray(transport_stream[0]), transport_stream[1]
    if suspicion == "flag":
        data[frames[20][1] + 1] |= 0x80  # transport_error_indicator
    for at in [at for frame in frames[20:] for at in frame] if suspicion == "counter" else []:
        data[at + 3] = data[at + 3] & 0xF0 | (data[at + 3] + 5) & 0x0F  # continuity_counter
    (tmp_path / "whole.ts").write_bytes(transport_stream[0])
    (tmp_path / "suspected.ts").write_bytes(data)
    pairs = zip(read_frames(tmp_path / "whole.ts"), read_frames(tmp_path / "suspected.ts"), strict=True)
    assert sum(np.array_equal(one.rgb, other.rgb) for one, other in pairs) == 50


@pytest.mark.parametrize("lost", [10, 20, 31])
def test_a_frame_that_is_lost_is_the_one_told(
    tmp_path: Path, transport_stream: tuple[bytearray, list[list[int]]], lost: int
) -> None:
    data, frames = transport_stream
    (tmp_path / "lossy.ts").write_bytes(data[: frames[lost][0]] + data[frames[lost + 1][0] :])
    assert len(read_until_damage(tmp_path / "lossy.ts")[0]) == lost


def test_a_packet_that_is_lost_damages_its_frame(
    tmp_path: Path, transport_stream: tuple[bytearray, list[list[int]]]
) -> None:
    data, frames = transport_stream
    middle = frames[20][len(frames[20]) // 2]
    (tmp_path / "lossy.ts").write_bytes(data[:middle] + data[middle + PACKET :])
    delivered, error = read_until_damage(tmp_path / "lossy.ts")
    assert len(delivered) == 20 and "error while decoding" in str(error)


# No process is left behind.


def test_closing_the_iterator_ends_ffmpeg(clip: Path) -> None:
    frames = read_frames(clip)
    next(frames)
    assert children()
    frames.close()  # type: ignore[attr-defined]
    assert not children()


def test_dropping_the_iterator_ends_ffmpeg(clip: Path) -> None:
    frames = read_frames(clip, fps=10)
    next(frames)
    assert children()
    del frames
    gc.collect()
    assert not children()
