"""The training loop at toy size: what it learns, what it leaves behind, how it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from depth_train.checkpoints.folder import best_folder, earlier_checkpoints, kept_of
from depth_train.cli import main
from depth_train.config import Optimizer, Stage, TrainConfig
from depth_train.config_files import load_config
from depth_train.data import clip_pool
from depth_train.loop import finetune, trainer
from depth_train.loop.clock import Pace
from depth_train.loop.finetune import train
from depth_train.loop.schedule import rate_share, stage_at
from depth_train.loop.trainer import Stepped
from depth_train.loop.watch import Show
from depth_train.optim.optimizers import make_optimizers
from depth_train.optim.spatial import temporal_modules
from depth_train.tasks import depth_task
from depth_train.tasks.catalogue import task_of
from depth_train.tasks.depth import DepthModel
from depth_train.tasks.loss import depth_loss
from depth_train.tasks.start import start_model
from safetensors.torch import load_file

from depth_engine import DepthEngine
from depth_engine.models.svd.codec import to_pixels

UNET = Path("unet") / "diffusion_pytorch_model.safetensors"
SMALL = load_config("smoke")
CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]


def quiet(config: TrainConfig, folder: Path, **options: object) -> None:
    train(config, folder, show=Show(lambda line: None), **options)  # type: ignore[arg-type]


def test_training_predicts_what_the_engine_predicts(tmp_path: Path) -> None:
    """One preconditioner, one codec: the network of a saved model predicts in the engine what it does in training."""
    quiet(SMALL, tmp_path / "model")
    engine = DepthEngine.from_pretrained(tmp_path / "model", device="cpu")
    config = json.loads((tmp_path / "model" / "train_config.json").read_text())
    network: Any = engine.model
    assert config["seed"] == 0 and len(config["stages"]) == 3
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    model = DepthModel(network.unet, network.codec, network.embedder, engine.spec, SMALL.sigma)
    rgb = to_pixels(torch.from_numpy(frames).movedim(-1, 1))[None]
    with torch.inference_mode():
        first = model.predict(rgb[:, :3], torch.zeros(1, 0, 32, 48))
        # Latents go to the next window unclipped; only the depth that is given out is clipped.
        second = model.predict(rgb[:, 2:], first[:, 2:])
    expected = (torch.cat([first, second], dim=1)[0] / 2 + 0.5).clamp(0, 1).numpy()
    values = engine.estimate(frames, shots=False, window=3, stride=2, max_res=64, flow=False).values
    assert np.abs(values - expected).max() < 1e-5


@pytest.mark.usefixtures("eight_threads")
def test_clips_are_made_with_few_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, set[int]] = {}
    real = {"make_clips": clip_pool.make_clips, "step_loss": depth_task.step_loss}

    def noting(name: str) -> Callable:
        def run(*given: object, **named: object) -> object:
            taken.setdefault(name, set()).add(torch.get_num_threads())
            return real[name](*given, **named)

        return run

    monkeypatch.setattr(clip_pool, "make_clips", noting("make_clips"))
    monkeypatch.setattr(depth_task, "step_loss", noting("step_loss"))
    quiet(replace(SMALL, steps=2, validation=replace(SMALL.validation, clips=0)), tmp_path / "model")
    assert taken == {"make_clips": {2}, "step_loss": {8}}


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_learning_beats_not_learning(optimizer: str) -> None:
    """Forty steps on one clip: the loss falls to well under its start."""
    fast = replace(SMALL.optimizer, name=optimizer, learning_rate=2e-3, muon_learning_rate=5e-3)  # type: ignore[arg-type]
    config = replace(SMALL, optimizer=fast, precision="float32")
    torch.manual_seed(0)
    model = start_model(config, None, CPU)
    rgb = torch.rand(1, 2, 3, 32, 32) * 2 - 1
    target = torch.linspace(-1, 1, 32).expand(1, 2, 32, 32)
    optimizers = make_optimizers(model.trained, config)
    losses = []
    for _ in range(40):
        loss = depth_loss(model.predict(rgb, target[:, :0]), target, target < 2, None, config)
        loss.backward()
        for part in optimizers.values():
            part.step()
        model.trained.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("together", [2**23, 2 * 32 * 24 * 9])
def test_muon_moves_kernels_as_torchs_muon_moves_the_same_matrices(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wide and tall ones, three of one shape, all at once or two at a time; one without a gradient now and then."""
    from depth_train.optim import muon

    monkeypatch.setattr(muon, "_TOGETHER", together)
    config = replace(SMALL, optimizer=replace(SMALL.optimizer, name="muon", weight_decay=0.1))
    torch.manual_seed(0)
    model = torch.nn.ModuleList([*(torch.nn.Conv2d(24, 32, 3) for _ in range(3)), torch.nn.Linear(24, 200)])
    kernels = [layer.weight for layer in model]
    starts = [kernel.detach().flatten(1).clone() for kernel in kernels]  # type: ignore[operator]
    matrices = [torch.nn.Parameter(start.clone()) for start in starts]
    optimizers = make_optimizers(model, config)
    assert set(optimizers) == {"muon", "adam"}, "biases are no matrices"
    peer = torch.optim.Muon(
        matrices, lr=config.optimizer.muon_learning_rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(4):
        for number, (kernel, matrix) in enumerate(zip(kernels, matrices, strict=True)):
            has_grad = number != step
            kernel.grad = torch.randn_like(kernel) if has_grad else None  # type: ignore[call-overload]
            matrix.grad = kernel.grad.flatten(1).clone() if has_grad else None  # type: ignore[union-attr]
        optimizers["muon"].step()
        peer.step()
    for kernel, matrix, start in zip(kernels, matrices, starts, strict=True):
        # torch's rounds to bfloat16 in every product: 2 % of a step.
        moved, peers = kernel.flatten(1) - start, matrix - start  # type: ignore[operator]
        assert (moved - peers).norm() < 0.02 * peers.norm()


@pytest.mark.parametrize("shape", [(3, 24, 200), (2, 200, 24), (2, 32, 32)])
def test_muon_orthogonalises_by_the_quintic(shape: tuple[int, int, int]) -> None:
    """The iterations on the Gram matrix against the polynomial of each singular value, in float64."""
    from depth_train.optim.muon import orthogonalized

    a, b, c = coefficients = (3.4445, -4.7750, 2.0315)
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    matrices *= torch.logspace(0, -3, shape[1])[:, None]  # the rows of real gradients differ as much
    u, s, vh = torch.linalg.svd(matrices.double(), full_matrices=False)
    s = s / s.norm(dim=1, keepdim=True)
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    expected = u * s[:, None, :] @ vh
    assert (orthogonalized(matrices, coefficients, 5, 1e-7) - expected).abs().max() < 1e-3


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    rates = [rate_share(SMALL, step, step / 6) for step in range(7)]
    assert rates[0] == pytest.approx(0.5)
    assert rates[1:3] == [1.0, 1.0], "held until the fall begins"
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[-1] == pytest.approx(0)
    assert [stage_at(SMALL, share) for share in (0.0, 0.3, 0.59, 0.6, 1.0)] == [0, 1, 1, 2, 2]


def test_budget_stops_the_run(tmp_path: Path) -> None:
    lines: list[str] = []
    train(replace(SMALL, steps=10**9), tmp_path / "model", pace=Pace(0.05), show=Show(lines.append))
    assert "steps; checkpoint in" in lines[-1]
    assert DepthEngine.from_pretrained(tmp_path / "model", device="cpu").spec.window == 3


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / UNET)


def test_stages_freeze_what_they_do_not_train(tmp_path: Path, svd_folder: Path) -> None:
    """SVD to depth, a stage of each kind, through the VAE; what a stage freezes keeps SVD's values."""
    begun = start_model(replace(SMALL, base=str(svd_folder)), None, CPU)
    before = {key: value.half() for key, value in begun.trained.state_dict().items()}
    temporal = {
        f"{name}.{part}"
        for name, module in begun.trained.named_modules()
        if any(module is other for other in temporal_modules(begun.trained))
        for part in dict(module.named_parameters())
    }
    assert 0 < len(temporal) < len(before)
    for trains, kept in (("spatial", temporal), ("temporal", set(before) - temporal)):
        stage = Stage(1.0, 64, 64, batch=2, max_frames=2, clip_frames=2, pool=2, fresh=1, objective="diffusion")
        config = replace(
            SMALL,
            base=str(svd_folder),
            kind="depth",
            sigma=700.0,
            steps=2,
            optimizer=replace(SMALL.optimizer, name="adam", weight_decay=0.0, learning_rate=0.01),
            checkpoint_activations=trains == "spatial",
            stages=(replace(stage, trains=trains),),
        )
        quiet(config, tmp_path / trains)
        after = weights(tmp_path / trains)
        assert all(torch.equal(after[key], before[key]) for key in kept)
        moved = [key for key in set(before) - kept if not torch.equal(after[key], before[key])]
        assert len(moved) > 0.5 * len(set(before) - kept)
        engine = DepthEngine.from_pretrained(tmp_path / trains, device="cpu")
        assert engine.spec.kind == "depth" and engine.spec.steps == 5 and engine.spec.start == "noise"
        assert engine.estimate(np.zeros((3, 64, 64, 3), np.uint8), shots=False).values.shape == (3, 64, 64)


@pytest.mark.parametrize("half_life", [20.0, 200.0])
def test_the_average_forgets_by_its_half_life(half_life: float) -> None:
    """A weight that jumps from 0 to 1 after 4000 steps: the average is half way there a half-life later."""
    config = replace(SMALL, optimizer=replace(SMALL.optimizer, ema_half_life=half_life))
    average, weight = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(average.weight)
    seen = []
    for step in range(4000 + int(2 * half_life)):
        torch.nn.init.constant_(weight.weight, float(step >= 4000))
        trainer.average_into(average, weight, config, step)
        seen.append(float(average.weight.detach()))
    assert seen[3999] == 0
    assert seen[3999 + int(half_life)] == pytest.approx(0.5, abs=0.02)
    assert seen[-1] == pytest.approx(0.75, abs=0.02)


class Killed(Exception):
    pass


def test_a_resumed_run_ends_in_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    """Float32, stages of all kinds; stopped twice, once within a stage and once at its border."""
    config = replace(SMALL, precision="float32", steps=9, optimizer=replace(SMALL.optimizer, ema_half_life=3.0))
    quiet(config, tmp_path / "unbroken")
    folder, real = tmp_path / "broken", trainer.average_into
    for stop_at in (3, 7):
        with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:

            def step_lost(average: object, unet: object, config: object, step: int, last: int = stop_at) -> None:
                if step == last:
                    raise Killed
                real(average, unet, config, step)  # type: ignore[arg-type]

            patch.setattr(trainer, "average_into", step_lost)
            quiet(config, folder, resume=folder.exists(), pace=Pace(save_every_s=0))
        assert DepthEngine.from_pretrained(folder, device="cpu").spec.window == 3, "loadable whenever it is stopped"
    quiet(config, folder, resume=True)
    expected, found = weights(tmp_path / "unbroken"), weights(folder)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not (folder / "resume").exists(), "a finished run has nothing to resume"
    with pytest.raises(ValueError, match="holds no interrupted run"):
        train(config, folder, resume=True)


def assert_alike(config: TrainConfig, first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Two runs moved the weights, and moved them alike: sums in another order differ in the last digits alone."""
    torch.manual_seed(config.seed)
    begun = start_model(config, None, CPU).trained.state_dict()

    def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
        return sum(float((a[name].float() - b[name].float()).abs().sum()) for name in a)

    moved = distance(first, begun)
    assert moved / sum(value.numel() for value in begun.values()) > 1e-4
    assert distance(first, second) < 0.02 * moved


def test_accumulation_changes_nothing_but_memory(tmp_path: Path) -> None:
    whole = replace(SMALL.stages[2], until=1.0)
    for name, stage in (("whole", whole), ("parts", replace(whole, accumulate=2))):
        quiet(
            replace(
                SMALL, precision="float32", steps=4, optimizer=Optimizer("adam", weight_decay=0.0), stages=(stage,)
            ),
            tmp_path / name,
        )
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert_alike(SMALL, expected, found)


def test_the_last_and_the_best_checkpoints_are_kept_and_logged(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, lines = tmp_path / "model", []
    config = replace(SMALL, keep_last=3, validation=replace(SMALL.validation, clips=2))
    train(config, folder, pace=Pace(save_every_s=0), show=Show(lines.append, log_folder=tmp_path / "log"))
    assert [path.name for path in earlier_checkpoints(folder)] == [f"model-step00000{step}" for step in (3, 4, 5)]
    for kept in (folder, best_folder(folder), *earlier_checkpoints(folder)):
        assert DepthEngine.from_pretrained(kept, device="cpu").spec.window == 3
        assert not (kept / "resume").exists()
    log = EventAccumulator(str(tmp_path / "log")).Reload()
    scores = [event.value for event in log.Scalars("held-out AbsRel")]
    best = json.loads((best_folder(folder) / "validation.json").read_text())["abs_rel"]
    assert len(scores) == 6 and best == pytest.approx(min(scores))
    assert any("the best so far" in line for line in lines)
    picture = log.Images("picture, truth, prediction")[-1]
    assert (picture.width, picture.height) == (3 * 64, 2 * 32)
    again = ["run", "smoke", "-o", str(folder), "--steps", "1", "--overwrite", "--quiet"]
    assert CliRunner().invoke(main, again).exit_code == 0
    assert kept_of(folder) == [folder, best_folder(folder)]
    (new, kept) = (weights(path) for path in (folder, best_folder(folder)))
    assert all(torch.equal(new[name], kept[name]) for name in new), (
        "an old run's scores are not compared with a new one's"
    )


def test_a_kill_between_two_renames_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    quiet(replace(SMALL, steps=1), folder)
    folder.rename(tmp_path / ".model.previous")
    done = CliRunner().invoke(main, ["run", "smoke", "-o", str(folder), "--steps", "1"])
    assert done.exit_code == 2 and "--overwrite replaces it" in done.stderr
    assert DepthEngine.from_pretrained(folder, device="cpu").spec.window == 3


def test_a_resumed_run_keeps_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder, real = replace(SMALL, steps=10**9), tmp_path / "model", finetune.rate_share

    def killed_at_three(config: TrainConfig, step: int, progress: float) -> float:
        if step == 3:
            raise Killed
        return real(config, step, progress)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(finetune, "rate_share", killed_at_three)
        # So long that no machine, however busy, spends it before the third step.
        quiet(config, folder, pace=Pace(1000, save_every_s=0))
    progress = folder / "resume" / "progress.json"
    held = json.loads(progress.read_text())
    assert held["budget_minutes"] == 1000 and 0 < held["minutes"] < 1000
    progress.write_text(json.dumps(held | {"minutes": 999.999}))
    quiet(config, folder, resume=True)  # else it would go on for ever
    assert not (folder / "resume").exists()


def test_another_config_is_not_resumed(tmp_path: Path) -> None:
    quiet(SMALL, tmp_path / "model")
    (tmp_path / "model" / "resume").mkdir()
    with pytest.raises(ValueError, match="had seed 0, not 5"):
        train(replace(SMALL, seed=5), tmp_path / "model", resume=True)
    # A run that was begun before a field was there goes on with its default.
    path = tmp_path / "model" / "train_config.json"
    held = json.loads(path.read_text())
    del held["augmentation"], held["optimizer"]["betas"]
    path.write_text(json.dumps(held))
    with pytest.raises(ValueError, match="holds no state of this run"):
        train(SMALL, tmp_path / "model", resume=True)
    with pytest.raises(ValueError, match="had optimizer: betas"):
        train(replace(SMALL, optimizer=replace(SMALL.optimizer, betas=(0.5, 0.5))), tmp_path / "model", resume=True)


def test_an_older_checkpoint_is_not_replaced_unasked(tmp_path: Path) -> None:
    quiet(replace(SMALL, steps=1), tmp_path / "model")
    done = CliRunner().invoke(main, ["run", "-o", str(tmp_path / "model"), "--steps", "1"])
    assert done.exit_code == 2 and "--overwrite replaces it" in done.stderr
    done = CliRunner().invoke(main, ["run", "-o", str(tmp_path / "model"), "--resume"])
    assert done.exit_code == 2 and "holds no interrupted run" in done.stderr
    done = CliRunner().invoke(main, ["run", "bundled", "-o", str(tmp_path / "new"), "--init", str(tmp_path / "model")])
    assert done.exit_code == 1 and "has another shape than the config's" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "-o", "x", "--budget-minutes", "0"], "--budget-minutes: 0"),
        (["run", "-o", "x", "--steps", "0"], "--steps: 0"),
        (["run", "-o", "x", "--save-every", "0"], "--save-every: 0"),
        (["run", "-o", "x", "--device", "tpu"], "device: 'tpu'"),
        (["score", "no/such/folder/here"], "no such folder"),
    ],
)
def test_bad_requests_get_one_line(
    arguments: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert text in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    done = CliRunner().invoke(main, ["run", "-o", str(tmp_path), "--steps", "1"])
    assert done.exit_code == 2 and "no checkpoint of this command" in done.stderr
    assert (tmp_path / "letters.txt").read_text() == "mine"


def plain(config: TrainConfig) -> dict:
    return json.loads(json.dumps(asdict(config)))


BARE = """
import sys
absent = ("ffmpeg", "imageio_ffmpeg", "cv2", "scenedetect", "OpenEXR", "platformdirs", "psutil", "h5py", "rich",
          "tensorboard", "skvideo")
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in absent else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
try:
    import cv2
    sys.exit("cv2 is there after all")
except ModuleNotFoundError:
    pass
import runpy
sys.argv[:] = ["training/train.py", "run", sys.argv[1], "-o", sys.argv[2], "--quiet"]
runpy.run_path("training/train.py", run_name="__main__")
"""


def test_a_bare_checkout_trains(tmp_path: Path) -> None:
    """From the checkout, without ffmpeg and without what only the engine's files and videos need."""
    environment = {**os.environ, "PATH": str(Path(sys.executable).parent)}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(plain(load_config("smoke")) | {"validation": {"clips": 1}}))
    command = [sys.executable, "-c", BARE, str(config), str(tmp_path / "model")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert DepthEngine.from_pretrained(tmp_path / "model", device="cpu").spec.steps == 1


def test_generator_training_starts_in_a_bare_checkout(tmp_path: Path) -> None:
    """Nothing installed: depth2video is found in the checkout."""
    code = (
        "import runpy, sys; from pathlib import Path;"
        "sys.path[:] = [path for path in sys.path if path and not (Path(path) / 'depth_engine').is_dir()"
        " and Path(path).name not in ('apps', 'training')];"
        "sys.argv[:] = ['training/train.py', 'generator', '-o', sys.argv[1], '--dry-run'];"
        "runpy.run_path('training/train.py', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "stage 2" in done.stdout, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "model"
    command = [sys.executable, "training/train.py", "run", "smoke", "-o", str(folder), "--quiet"]
    for extra in (["--steps", "1000000"], ["--steps", "1000000", "--resume"]):
        process = subprocess.Popen(
            [*command, *extra], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert any("step" in line for line in process.stdout), "no step was shown"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130 and "interrupted" in errors, errors
        assert DepthEngine.from_pretrained(folder, device="cpu").spec.steps == 1
        assert (folder / "resume").is_dir()


def test_a_short_run_is_logged_and_a_resumed_one_goes_on_where_it_was(tmp_path: Path) -> None:
    from depth_train.checkpoints.state import Progress
    from depth_train.loop.watch import Watch
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(
        replace(load_config("smoke"), steps=3),
        tmp_path / "model",
        show=Show(lambda _: None, log_folder=tmp_path / "log"),
    )
    log = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [point.step for point in log.Scalars("loss")] == [3] and log.Images("picture, truth, prediction")

    lines: list[str] = []
    began = Progress(step=100, minutes=60.0)
    watch = Watch(SMALL, CPU, Show(lines.append), budget_minutes=None, began=began, enabled=True)
    for step in range(101, 151):
        watch.stepped(
            Progress(step=step, minutes=60 + (step - 100) / 60), SMALL.stages[0], Stepped(1.0, 1.0, True), 0.0, 0.5
        )
    watch.close()
    assert "1.00 steps/s" in lines[0], "the hour before does not count"


def test_a_checkpoint_that_means_something_else_is_no_start(tmp_path: Path) -> None:
    quiet(replace(SMALL, steps=1), tmp_path / "model")
    spec = tmp_path / "model" / "depth_engine.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"condition_first": False}))
    task = task_of(SMALL)
    with pytest.raises(ValueError, match="was trained with condition_first False, the config means True"):
        task.check(tmp_path / "model")


def test_a_unet_published_alone_is_a_start(tmp_path: Path, svd_folder: Path) -> None:
    from tests.tiny_checkpoints import tiny_unet_only

    config = replace(SMALL, base=str(svd_folder))
    alone = tiny_unet_only(tmp_path / "alone", svd_folder)
    task_of(config).check(alone)
    model = start_model(config, alone, CPU)
    held = load_file(alone / "diffusion_pytorch_model.safetensors")
    state = model.trained.state_dict()
    assert all(torch.equal(state[name], value.float()) for name, value in held.items())
