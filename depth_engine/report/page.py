"""report.html: input and results playing in step, the settings, and where the result changes.

One page without any external request (its content security policy forbids them). The preview video lies in it once,
as base64; every player crops its place of it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from depth_engine.runs.atomic import part_path, publish, refuse_existing

# More points than a screen has columns show nothing more.
_MAX_PLOT_POINTS = 2000
_PLOT_WIDTH, _PLOT_HEIGHT = 1000, 200  # SVG units, stretched to the page
# Bytes of video per <script> block. A multiple of 3, so that only the last block is padded; small, because browsers
# limit the length of one string and the page decodes block by block.
_BLOCK_BYTES = 3 * 2**18


def write_report(
    path: str | Path,
    *,
    preview_mp4: str | Path,
    title: str,
    settings: Mapping[str, Any],
    change: Sequence[float] | np.ndarray,
    shots: Sequence[int],
    times_s: Sequence[float] | np.ndarray,
    notes: Sequence[str] = (),
    outputs: Sequence[str | Path] = (),
    panels: Sequence[str] = ("Input", "Depth (warm is near)"),
    change_of: str = "Depth",
    overwrite: bool = False,
) -> None:
    """Write the report page. Memory does not grow with the preview; all text is escaped.

    Args:
        path: The page, such as DIR/report.html; appears whole or not at all.
        preview_mp4: Video with the panels side by side (`visualize.side_by_side`), one frame for each of `times_s`,
            shown at that time (`video.VideoWriter`).
        title: Heading, usually the clip's name.
        settings: Name -> value, shown as a table; nested values as JSON.
        change: `[T - 1]`, `metrics.mean_abs_change` of the result's frames i and i + 1; finite, >= 0.
        shots: First frame of every shot, in [0, T).
        times_s: `[T]`, seconds, increasing.
        notes: Sentences shown below the title.
        outputs: Files and folders to list with their size; they must exist.
        panels: What the preview shows, left to right.
        change_of: What `change` was measured on, for the plot's heading.
        overwrite: Replace an existing page.

    Raises:
        ValueError: `change`, `shots` and `times_s` are not as described.
        FileExistsError: The page exists and `overwrite` is off.
        FileNotFoundError: The preview or an output does not exist.
    """
    path, preview_mp4 = Path(path), Path(preview_mp4)
    refuse_existing(path, overwrite)
    times = np.asarray(times_s, np.float64)
    changes = np.asarray(change, np.float64)
    _check_series(times, changes, shots)
    head = "".join(
        [
            f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n",
            "".join(f"<p>{escape(note)}</p>\n" for note in notes),
            _PLAYERS.replace("@LAST@", str(len(times) - 1)).replace("@FIGURES@", _figures(panels)),
            _plot_section(times, changes, shots, change_of),
            _settings_section(settings),
            _outputs_section([Path(output) for output in outputs]),
            "</main>\n",
        ]
    )
    # Tenths of a millisecond place every frame; numbers only, so nothing in it needs escaping.
    data = json.dumps({"times": [round(time, 4) for time in times.tolist()]}, separators=(",", ":"))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(path)
    try:
        with open(part, "x", encoding="utf-8", newline="\n") as page:
            page.write(_DOCUMENT_START + head)
            page.write(f'<script type="application/json" id="data">{data}</script>\n')
            _embed(page, preview_mp4)
            page.write(f"<script>{_SCRIPT}</script>\n</body>\n</html>\n")
        publish(part, path, overwrite)
    finally:
        part.unlink(missing_ok=True)


def thin(times_s: np.ndarray, change: np.ndarray, limit: int = _MAX_PLOT_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `limit` points of a series, keeping the lowest and the highest of every stretch: no peak is lost.

    Args:
        times_s: `[N]`.
        change: `[N]`.
        limit: At least 2.

    Returns:
        (times_s, change), in order.
    """
    if len(change) <= limit:
        return times_s, change
    keep = set()
    for stretch in np.array_split(np.arange(len(change)), limit // 2):
        keep.update((stretch[change[stretch].argmin()], stretch[change[stretch].argmax()]))
    kept = sorted(keep)
    return times_s[kept], change[kept]


def _check_series(times: np.ndarray, change: np.ndarray, shots: Sequence[int]) -> None:
    if times.ndim != 1 or times.size == 0 or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise ValueError("times_s: must be a non-empty row of finite, increasing times")
    if change.shape != (len(times) - 1,):
        raise ValueError(f"change: shape {change.shape} is not one value between each two of {len(times)} frames")
    if not np.isfinite(change).all() or (change < 0).any():
        raise ValueError("change: must be finite and >= 0")
    outside = [first for first in shots if not 0 <= first < len(times)]
    if outside:
        raise ValueError(f"shots: {outside[0]} is not the index of one of {len(times)} frames")


def _embed(page: TextIO, preview_mp4: Path) -> None:
    for block in _blocks(preview_mp4):
        page.write(f'<script type="text/plain" class="clip">{base64.b64encode(block).decode("ascii")}</script>\n')


def _blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _figures(panels: Sequence[str]) -> str:
    """A player for each panel; the first one leads and has the sound."""
    return "\n".join(
        f'<figure><div class="pane"><video playsinline preload="auto"{" muted" if place else ""} '
        f'style="width: {100 * len(panels)}%; margin-left: -{100 * place}%"></video></div>\n'
        f"<figcaption>{escape(panel)}</figcaption></figure>"
        for place, panel in enumerate(panels)
    )


def _plot_section(times: np.ndarray, change: np.ndarray, shots: Sequence[int], change_of: str) -> str:
    """SVG of change over time; empty for a clip of one frame."""
    if len(change) == 0:
        return ""
    first_s, last_s = float(times[0]), float(times[-1])
    units_per_s = _PLOT_WIDTH / (last_s - first_s)
    # A cut changes everything; it must not flatten the rest of the curve.
    within_shot = np.ones(len(change), bool)
    within_shot[[first - 1 for first in shots if first > 0]] = False
    top = float(change[within_shot].max(initial=0.0)) or float(change.max()) or 1.0
    plot_times, plot_change = thin(times[1:], change)
    x = (plot_times - first_s) * units_per_s
    y = _PLOT_HEIGHT * (1 - np.minimum(plot_change / top, 1.0))
    curve = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
    cuts = "".join(f"M{(times[first] - first_s) * units_per_s:.1f} 0V{_PLOT_HEIGHT}" for first in shots if first > 0)
    cut_count = sum(first > 0 for first in shots)
    return f"""<section>
<h2>{escape(change_of)}: change between frames</h2>
<p class="note">Mean |x<sub>t</sub> - x<sub>t-1</sub>| over time. Dashed lines are cuts ({cut_count}); a peak at a cut
may leave the plot. Click to go there.</p>
<div class="plot">
<span class="ends"><span>{top:.3g}</span></span>
<svg id="plot" viewBox="0 0 {_PLOT_WIDTH} {_PLOT_HEIGHT}" preserveAspectRatio="none" role="img"
 aria-label="Change between frames over time, top of the scale {top:.3g}">
<path class="cut" d="{cuts}"/><path class="curve" d="{curve}"/>
<line id="cursor" x1="0" x2="0" y1="0" y2="{_PLOT_HEIGHT}"/></svg>
<span class="ends"><span>{first_s:.2f} s</span><span>{last_s:.2f} s</span></span>
</div>
</section>
"""


def _settings_section(settings: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(str(name))}</th><td>{escape(_shown(value))}</td></tr>\n"
        for name, value in settings.items()
    )
    return f"<section>\n<h2>Settings</h2>\n<table>\n{rows}</table>\n</section>\n" if rows else ""


def _shown(value: object) -> str:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def _outputs_section(outputs: Sequence[Path]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(output.name)}</th><td>{_size(output)}</td></tr>\n" for output in outputs
    )
    return f"<section>\n<h2>Files</h2>\n<table>\n{rows}</table>\n</section>\n" if rows else ""


def _size(path: Path) -> str:
    """Size of a file, or number and size of a folder's files."""
    if not path.is_dir():
        return _megabytes(path.stat().st_size)
    sizes = [entry.stat().st_size for entry in path.iterdir()]
    return f"{len(sizes)} files, {_megabytes(sum(sizes))}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


_DOCUMENT_START = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; media-src blob:">
"""

_CSS = """
:root { color-scheme: light dark; --back: #fafafa; --panel: #fff; --text: #1d1f23; --faint: #6a6f78;
  --line: #d9dce1; --accent: #c2410c; --mark: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --back: #15171a; --panel: #1d2024; --text: #e6e7e9; --faint: #9aa0a9;
  --line: #33373d; --accent: #fb923c; --mark: #7aa8ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.35rem; margin: .25rem 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 1.75rem 0 .25rem; }
.note, figcaption, .ends { color: var(--faint); font-size: .85rem; margin: 0 0 .25rem; }
.players { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: .5rem; }
figure { margin: 0; }
.pane { overflow: hidden; aspect-ratio: 16 / 9; background: #000; border-radius: 4px; }
.pane video { display: block; height: 100%; max-width: none; object-fit: fill; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin-top: .25rem; }
.controls input { flex: 1 1 14rem; min-width: 8rem; accent-color: var(--accent); }
button, select { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line);
  border-radius: 4px; min-height: 2.25rem; min-width: 2.5rem; padding: 0 .6rem; cursor: pointer; }
output { font-variant-numeric: tabular-nums; color: var(--faint); min-width: 12.5rem; }
.plot .ends { display: flex; justify-content: space-between; }
svg { display: block; width: 100%; height: 10rem; background: var(--panel); border: 1px solid var(--line);
  border-radius: 4px; cursor: crosshair; touch-action: pan-y; }
svg path, svg line { fill: none; vector-effect: non-scaling-stroke; }
.curve { stroke: var(--accent); stroke-width: 1.5px; stroke-linejoin: round; }
.cut { stroke: var(--faint); stroke-width: 1px; stroke-dasharray: 4 3; }
#cursor { stroke: var(--mark); stroke-width: 2px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { font-weight: 500; color: var(--faint); width: 30%; }
"""

_PLAYERS = """<section aria-label="Players">
<div class="players">
@FIGURES@
</div>
<div class="controls">
<button id="play" type="button">Play</button>
<button id="back" type="button" aria-label="One frame back">&#9664;</button>
<button id="forward" type="button" aria-label="One frame forward">&#9654;</button>
<input id="scrub" type="range" min="0" max="@LAST@" value="0" aria-label="Frame">
<select id="speed" aria-label="Speed"><option value="0.25">0.25x</option><option value="0.5">0.5x</option>
<option value="1" selected>1x</option><option value="2">2x</option></select>
<output id="where">loading</output>
</div>
<p class="note">Space plays and pauses, left and right arrow keys step one frame.</p>
<noscript>The players need JavaScript.</noscript>
</section>
"""

# The first player leads: the others get the same seeks and follow its clock while playing. All stand still during a
# seek and start together once all have arrived.
_SCRIPT = """
'use strict';
const $ = id => document.getElementById(id);
const all = [...document.querySelectorAll('video')];
const [lead, ...others] = all;
const times = JSON.parse($('data').textContent).times;
const last = times.length - 1;
const durationS = times[last] - times[0];
const frameS = last > 0 ? durationS / last : 0.04;
let wanted = null;  // frame to seek to once the running seek is done
let shown = 0;
let playing = false;  // what the user asked for; while seeking the players are paused all the same
let loop = 0;

function frameAt(time) {
  let low = 0, high = last;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (times[middle] <= time + 1e-4) low = middle; else high = middle - 1;
  }
  return low;
}
// The middle of a frame's time: the same frame in every player, whatever the rounding.
function middleOf(frame) {
  return frame < last ? (times[frame] + times[frame + 1]) / 2 : times[last] + frameS / 2;
}
function seek(frame) {
  wanted = Math.min(last, Math.max(0, frame));
  draw(wanted);
  settle();
}
function settle() {
  if (all.some(video => video.seeking || video.readyState < 1)) return;
  if (wanted !== null) {
    const time = middleOf(wanted);
    wanted = null;
    for (const video of all) { video.pause(); video.currentTime = time; }
  } else if (playing && lead.paused) {
    // A pause before playing has begun aborts it; that is no failure.
    for (const video of all) video.play().catch(error => { if (error.name !== 'AbortError') pause(); });
    cancelAnimationFrame(loop);
    loop = requestAnimationFrame(follow);
  }
}
function draw(frame) {
  shown = frame;
  $('scrub').value = frame;
  $('where').textContent = 'frame ' + frame + ' / ' + last + ', ' + times[frame].toFixed(2) + ' s';
  const cursor = $('cursor');
  if (!cursor) return;
  const x = 1000 * (times[frame] - times[0]) / durationS;
  cursor.setAttribute('x1', x);
  cursor.setAttribute('x2', x);
}
function pause() {
  playing = false;
  for (const video of all) video.pause();
  $('play').textContent = 'Play';
}
function toggle() {
  if (playing) { pause(); seek(shown); return; }
  playing = true;
  $('play').textContent = 'Pause';
  if (shown === last) seek(0); else settle();
}
function follow() {
  if (lead.ended) { pause(); seek(last); return; }
  if (!playing || lead.paused) return;
  draw(frameAt(lead.currentTime));
  for (const other of others) {
    const drift = other.currentTime - lead.currentTime;
    // Far apart: align. A little apart: run up to a tenth faster or slower, which does not show.
    if (Math.abs(drift) > 0.15) seek(shown);
    const catchUp = Math.abs(drift) > frameS / 4 ? Math.max(-0.1, Math.min(0.1, 2 * drift)) : 0;
    other.playbackRate = lead.playbackRate * (1 - catchUp);
  }
  loop = requestAnimationFrame(follow);
}
function step(count) { const from = shown; pause(); seek(from + count); }

for (const video of all) {
  video.addEventListener('seeked', settle);
  video.addEventListener('loadedmetadata', () => {
    video.parentElement.style.aspectRatio = video.videoWidth / all.length + ' / ' + video.videoHeight;
    if (all.every(other => other.readyState >= 1)) seek(0);
  });
  video.addEventListener('error', () => { $('where').textContent = 'this browser cannot play the video'; });
}
$('play').onclick = toggle;
$('back').onclick = () => step(-1);
$('forward').onclick = () => step(1);
$('scrub').oninput = event => seek(Number(event.target.value));
$('speed').onchange = event => { for (const video of all) video.playbackRate = Number(event.target.value); };
document.addEventListener('keydown', event => {
  const tag = event.target.tagName;
  if (event.ctrlKey || event.metaKey || event.altKey || tag === 'SELECT') return;
  if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') step(event.key === 'ArrowLeft' ? -1 : 1);
  else if (event.key === ' ' && tag !== 'BUTTON') toggle();
  else return;
  event.preventDefault();
});
const plot = $('plot');
if (plot) {
  const go = event => {
    const box = plot.getBoundingClientRect();
    seek(frameAt(times[0] + (event.clientX - box.left) / box.width * durationS));
  };
  plot.addEventListener('pointerdown', event => { plot.setPointerCapture(event.pointerId); go(event); });
  plot.addEventListener('pointermove', event => { if (event.buttons) go(event); });
}
async function loadClip() {
  const pieces = [];
  for (const element of document.querySelectorAll('script.clip')) {
    const text = atob(element.textContent);
    element.remove();
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    pieces.push(bytes);
    await new Promise(resolve => setTimeout(resolve));  // a long clip must not freeze the page
  }
  const url = URL.createObjectURL(new Blob(pieces, {type: 'video/mp4'}));
  for (const video of all) video.src = url;
}
loadClip();
"""
