"""Options of a run from the command line and from a file, checked for names and types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from depth_engine.checks import known_name

DEFAULTS: dict[str, Any] = {
    "output": None,
    "model": "bundled",
    "spec": None,
    "base": None,
    "formats": "mkv",
    "window": None,
    "stride": None,
    "steps": None,
    "sigmas": None,
    "strategy": None,
    "sampler": None,
    "flow": None,
    "max_res": None,
    "seed": 0,
    "start": None,
    "end": None,
    "fps": None,
    "max_frames": None,
    "stream": None,
    "transfer": None,
    "shots": True,
    "device": "auto",
    "dtype": "auto",
    "overwrite": False,
    "resume": False,
}
_NUMBERS = {"window": int, "stride": int, "steps": int, "max_res": int, "seed": int, "max_frames": int, "stream": int}
_NUMBERS |= {"start": float, "end": float, "fps": float}
_SWITCHES = ("shots", "flow")  # which can be turned off, too
# Names that a sidecar uses for the same things, and what it records besides.
_SIDECAR_NAMES = {"start_s": "start", "end_s": "end"}
_SIDECAR_ONLY = ("model_size", "area_px")


def merge_options(config: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults, overridden by the file, overridden by the command line.

    Args:
        config: YAML or JSON file with option names as keys (`max-res` or `max_res`), or a sidecar; or None.
        given: From click; None means "not given"; so does False, but for switches.

    Raises:
        ValueError: The file can't be read, or a key or a value is not accepted.
    """
    options = dict(DEFAULTS)
    from_sidecar = False
    if config is not None:
        read, from_sidecar = _read(config)
        options.update(read)
    options.update({key: value for key, value in given.items() if value is not None and value is not False})
    options.update({key: False for key in _SWITCHES if given.get(key) is False})
    # Flow in a file is for the file's own model and windows: others may not have it, or have it where those did not.
    elsewhere = any(given.get(key) is not None for key in ("model", "strategy", "window", "stride"))
    if elsewhere and given.get("flow") is None and (options["flow"] or from_sidecar):
        options["flow"] = None
    # --steps on the command line replaces a list of levels in the file, and the other way round.
    for one, other in (("steps", "sigmas"), ("sigmas", "steps")):
        if given.get(one) is not None and given.get(other) is None:
            options[other] = None
    return options


def _read(path: Path) -> tuple[dict[str, Any], bool]:
    """Options of a file, and whether it is a sidecar: that records what came about, not what was asked for."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--config: {path} can't be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config: {path} is neither YAML nor JSON ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise ValueError(f"--config: {path} holds no options, such as 'window: 10'")
    is_sidecar = "format_version" in data
    if is_sidecar:
        data = _from_sidecar(data)
    options: dict[str, Any] = {}
    for key, value in data.items():
        name = str(key).replace("-", "_")
        name = "formats" if name == "format" else name
        known_name(f"--config: {path}: option", name, tuple(DEFAULTS))
        if value is not None:
            options[name] = _checked(path, name, value)
    return options, is_sidecar


def _from_sidecar(data: Mapping[str, Any]) -> dict[str, Any]:
    recorded: dict[str, Any] = data.get("settings", {})
    if not isinstance(recorded, dict):
        raise ValueError(
            f"--config: settings: {recorded!r} is not accepted; the settings of a sidecar are named values"
        )
    settings: dict[str, Any] = {}
    for key, value in recorded.items():
        if key not in _SIDECAR_ONLY:
            settings[_SIDECAR_NAMES.get(key, key)] = value
    if settings.get("sigmas"):
        settings.pop("steps", None)
    return {**settings, "model": (data.get("checkpoint") or {}).get("name")}


def _checked(path: Path, name: str, value: Any) -> Any:
    where = f"--config: {path}: {name}"
    if name in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or _NUMBERS[name](value) != value:
            raise ValueError(f"{where}: {value!r} is not accepted; give a {'whole ' * (_NUMBERS[name] is int)}number")
        return _NUMBERS[name](value)
    if isinstance(DEFAULTS[name], bool) or name in _SWITCHES:
        if not isinstance(value, bool):
            raise ValueError(f"{where}: {value!r} is not accepted; give true or false")
        return value
    if name in ("formats", "sigmas") and isinstance(value, list):
        return ",".join(str(part) for part in value)
    return Path(value) if name == "output" else str(value)
