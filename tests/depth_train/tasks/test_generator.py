"""Training of the small generator: the true flow, what a step sees, and the loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from depth2video.generators.small import load_small, sample_at
from depth_train.config import Stage
from depth_train.config_files import load_config
from depth_train.data.clip_pool import ClipPool, Clips
from depth_train.data.draws import generator
from depth_train.loop.clock import Pace
from depth_train.loop.finetune import train
from depth_train.loop.watch import Show
from depth_train.scenes.models.store import view_name, write_view
from depth_train.tasks.generator import batch_generator, draw_generator, recolor, true_flow

from tests.depth_train.data.test_rendered import view_of

CPU = torch.device("cpu")
QUIET = Show(lambda line: None)
PRESET = load_config("bundled-generator")
CONFIG = replace(
    PRESET,
    network=replace(PRESET.network, channels=(32, 32), attention=(False, True), heads=(2, 2)),
    control=replace(PRESET.control, channels=(8, 8, 8)),
    recommends=replace(PRESET.recommends, window=4, stride=2),
    steps=3,
    optimizer=replace(PRESET.optimizer, warmup=1),
    precision="float32",
    stages=(Stage(1.0, 32, 48, batch=2, min_frames=4, max_frames=4, clip_frames=6, pool=4, fresh=0.5),),
)


@pytest.fixture(scope="module")
def pool() -> ClipPool:
    stage = Stage(1.0, 64, 96, batch=4, max_frames=4, clip_frames=6, pool=6, fresh=1)
    made = ClipPool(stage, 4, CONFIG.sources, CPU)
    made.load(6)
    return made


def test_the_true_flow_moves_the_anchor_onto_every_frame(pool: ClipPool) -> None:
    """Cut and mirrored too; other colours change nothing."""
    rngs = [generator(0, 5, place) for place in range(6)]
    clips = pool.draw(4, rngs)
    for config_seed in range(3):
        batch = batch_generator(clips, CONFIG, generator(config_seed, 1), rngs)
        for anchor in (0, 2):
            flow, seen = true_flow(batch.depth_m, batch.world_from_pixel, anchor)
            assert flow[:, anchor].abs().max() < 1e-4
            held = batch.rgb[:, anchor : anchor + 1].expand_as(batch.rgb)
            moved = sample_at(held.flatten(0, 1), flow.flatten(0, 1)).unflatten(0, batch.rgb.shape[:2])
            error = (moved - batch.rgb).abs().mean(2)[seen].mean()
            still = (held - batch.rgb).abs().mean(2)[seen].mean()
            assert error < 0.6 * still
            assert seen.float().mean() > 0.5


def test_control_is_what_inference_gives(pool: ClipPool) -> None:
    """White is the near end of the clip's range, in steps of 1 / 255."""
    rngs = [generator(0, 6, place) for place in range(6)]
    batch = batch_generator(pool.draw(4, rngs), CONFIG, generator(0, 2), rngs)
    counts = (batch.control + 1) * 127.5
    torch.testing.assert_close(counts, counts.round(), atol=1e-3, rtol=0)
    assert (batch.control[:, :, :1] == batch.control).all(), "three equal channels"
    for depth_m, control in zip(batch.depth_m, batch.control[:, :, 0], strict=True):
        near = depth_m <= depth_m[torch.isfinite(depth_m)].quantile(0.01)
        assert control[near].min() > 0.9
        assert (control[torch.isinf(depth_m)] == -1).all()


def test_a_clip_keeps_one_colouring() -> None:
    clip = torch.rand(1, 3, 8, 8).expand(5, -1, -1, -1) - 0.5
    changed = recolor(clip, generator(1, 0))
    assert torch.equal(changed, changed[:1].expand_as(changed)) and not torch.equal(changed, clip)


def test_unknown_cameras_give_no_flow(pool: ClipPool) -> None:
    clips = pool.draw(2, [generator(0, 7, place) for place in range(2)])
    blind = Clips(*clips[:3], torch.full_like(clips.world_from_pixel, torch.nan))
    flow, seen = true_flow(blind.depth_m, blind.world_from_pixel, 0)
    assert not seen.any() and torch.isfinite(flow).all()


def test_own_frames_come_of_two_whole_windows() -> None:
    stage = CONFIG.stages[0]
    draws = [
        draw_generator(stage, replace(CONFIG, context=replace(CONFIG.context, own_probability=0.5)), generator(0, step))
        for step in range(40)
    ]
    assert {draw.own for draw in draws} == {True, False}
    for draw in draws:
        assert (draw.frames, draw.known) == (6, 2) if draw.own else draw.frames == 4 and draw.known in (1, 2)
    short = replace(stage, clip_frames=5)
    assert not any(draw_generator(short, CONFIG, generator(0, step)).own for step in range(20))


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """Three steps at once, and two and one; the checkpoint loads and generates."""
    from depth_train.loop import trainer

    config = replace(CONFIG, context=replace(CONFIG.context, own_probability=0.5))
    train(config, tmp_path / "whole", show=QUIET)
    real, taken = trainer.average_into, 0

    class Killed(BaseException):
        pass

    def dies(*given: object) -> None:
        nonlocal taken
        real(*given)  # type: ignore[arg-type]
        taken += 1
        if taken == 3:
            raise Killed

    trainer.average_into = dies
    try:
        with pytest.raises(Killed):
            train(config, tmp_path / "parts", pace=Pace(save_every_s=0), show=QUIET)
    finally:
        trainer.average_into = real
    train(config, tmp_path / "parts", resume=True, show=QUIET)
    whole, parts = (load_small(tmp_path / name, device=CPU)._network.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_preset_of_real_scenes_differs_in_what_it_sees_and_trains_on_it(tmp_path: Path) -> None:
    preset, plain = load_config("real-generator"), load_config("bundled-generator")
    assert [(source.name, source.weight) for source in preset.sources] == [("rendered", 2), ("procedural", 1)]
    same = replace(preset, sources=plain.sources, stages=plain.stages, seed=plain.seed, precision=plain.precision)
    assert same == plain
    (tmp_path / "store").mkdir()
    for number in range(3):
        write_view(tmp_path / "store", view_name(number, 0, 4, (48, 64)), view_of(48, 64, frames=4))
    rendered, procedural = preset.sources
    sources = (replace(rendered, root=str(tmp_path / "store")), procedural)
    small = ("network", "control", "recommends", "steps", "optimizer", "stages")
    config = replace(preset, sources=sources, **{name: getattr(CONFIG, name) for name in small})
    train(config, tmp_path / "model", show=QUIET)
    assert load_small(tmp_path / "model", device=CPU)._network is not None


def test_presets_of_another_task_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    stages = "stages: [{until: 1, height: 64, width: 64, batch: 1, max_frames: 1, clip_frames: 1, pool: 1, fresh: 1}]"
    path.write_text(f"task: controlnet\n{stages}\n")
    with pytest.raises(ValueError, match="base: is missing"):
        load_config(str(path))
    path.write_text(f"task: generator\nbase: somewhere\n{stages}\n")
    with pytest.raises(ValueError, match="leave it out"):
        load_config(str(path))
