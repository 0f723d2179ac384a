"""--config files: what they may hold and how they meet the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from depth_engine.cli.run_config import DEFAULTS, merge_options


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_file_overrides_defaults_and_command_line_overrides_file(tmp_path: Path) -> None:
    path = config(tmp_path, "window: 6\nmax-res: 128\nformat: [mkv, npy]\nshots: false\n")
    options = merge_options(path, {"window": 3, "stride": None, "overwrite": False})
    assert options == {**DEFAULTS, "window": 3, "max_res": 128, "formats": "mkv,npy", "shots": False}


def test_what_is_on_can_be_turned_off(tmp_path: Path) -> None:
    path = config(tmp_path, "flow: true\n")
    assert merge_options(path, {"flow": None, "shots": None})["flow"] is True
    options = merge_options(path, {"flow": False, "shots": False})
    assert (options["flow"], options["shots"]) == (False, False)


def test_flow_in_the_file_is_for_its_own_model_and_strategy(tmp_path: Path) -> None:
    path = config(tmp_path, "flow: true\n")
    assert merge_options(path, {"strategy": "independent"})["flow"] is None
    assert merge_options(path, {"model": "chronodepth"})["flow"] is None
    assert merge_options(path, {"strategy": "context", "flow": True})["flow"] is True
    assert merge_options(path, {"stride": 8})["flow"] is None
    off = config(tmp_path, "flow: false\n")
    assert merge_options(off, {"strategy": "context"})["flow"] is False


def test_flow_that_a_sidecar_records_is_of_that_run(tmp_path: Path) -> None:
    """It says false where the checkpoint has none, too; that is no wish."""
    path = config(tmp_path, '{"format_version": 1, "settings": {"flow": false}, "checkpoint": {"name": "chronodepth"}}')
    assert merge_options(path, {})["flow"] is False
    assert merge_options(path, {"model": "bundled"})["flow"] is None
    assert merge_options(path, {"strategy": "context"})["flow"] is None
    assert merge_options(path, {"model": "bundled", "flow": False})["flow"] is False


def test_sigmas_on_the_command_line_replace_steps_in_the_file(tmp_path: Path) -> None:
    options = merge_options(config(tmp_path, "steps: 5\n"), {"sigmas": "700,15"})
    assert (options["steps"], options["sigmas"]) == (None, "700,15")


def test_a_sidecar_is_a_config(tmp_path: Path) -> None:
    sidecar = {
        "format_version": 1,
        "checkpoint": {"name": "bundled", "sha256": "0"},
        "settings": {"window": 4, "stride": 2, "steps": 1, "sigmas": None, "start_s": 1.5, "model_size": [1, 1]},
    }
    options = merge_options(config(tmp_path, json.dumps(sidecar)), {})
    assert (options["model"], options["window"], options["steps"], options["start"]) == ("bundled", 4, 1, 1.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("windw: 4\n", "option: 'windw' is not known; did you mean 'window'"),
        ("window: four\n", "window: 'four' is not accepted; give a whole number"),
        ("window: 4.5\n", "window: 4.5 is not accepted"),
        ("flow: fast\n", "flow: 'fast' is not accepted; give true or false"),
        ("shots: perhaps\n", "shots: 'perhaps' is not accepted; give true or false"),
        ("- 1\n", "holds no options"),
        ("a: [\n", "neither YAML nor JSON"),
    ],
)
def test_bad_files_get_one_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ValueError) as raised:
        merge_options(config(tmp_path, text), {})
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't be read"):
        merge_options(tmp_path / "none.yaml", {})
