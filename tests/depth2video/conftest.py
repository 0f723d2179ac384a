"""Tiny random checkpoints of the generators, made of the real classes and laid out as diffusers saves them."""

# diffusers and transformers annotate their constructors too loosely to check.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from depth_engine.depth.depth_video import DepthVideo
from tests.clips import make_clip, run_ffmpeg

CROSS_DIM = 16
WORDS = ["a", "red", "fox", "in", "snow", "stone", "city", "blurry"]


def _randomise(module: nn.Module, seed: int) -> nn.Module:
    """Zero-initialised layers would hide what passes through them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def _clip_tokenizer(folder: Path) -> None:
    """Letters and whole words, no merges but those that build the words: CLIP's own file layout."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    merges, pieces = [], []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            pair, merged = f"{parts[0]} {parts[1]}", parts[0] + parts[1]
            merges += [pair] if pair not in merges else []
            pieces += [merged] if merged not in pieces else []
            parts = [merged, *parts[2:]]
    names = [*letters, *(f"{letter}</w>" for letter in letters), *pieces, "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token="<|endoftext|>", model_max_length=77
    ).save_pretrained(folder)


def _unigram_tokenizer(folder: Path) -> None:
    """A T5 tokenizer of a few words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -4.0)]
    pieces += [(f"\u2581{word}", -2.0) for word in WORDS] + [(letter, -6.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    ).save_pretrained(folder)


def _index(folder: Path, pipeline: str, **parts: list[str | None]) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline, **parts}))


def tiny_sd15(folder: Path) -> Path:
    """Stable Diffusion 1.5's layout: `unet`, `vae`, `text_encoder`, `tokenizer`, `scheduler`."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    _randomise(
        UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=CROSS_DIM,
            attention_head_dim=4,
            norm_num_groups=4,
        ),
        1,
    ).save_pretrained(folder / "unet")
    _randomise(
        AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
            sample_size=64,
        ),
        2,
    ).save_pretrained(folder / "vae")
    _clip_tokenizer(folder / "tokenizer")
    vocabulary = len(json.loads((folder / "tokenizer" / "vocab.json").read_text()))
    text = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=CROSS_DIM,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    _index(folder, "StableDiffusionPipeline", unet=["diffusers", "UNet2DConditionModel"])
    return folder


def tiny_motion_adapter(folder: Path, context: int = 16) -> Path:
    """A motion adapter for `tiny_sd15`."""
    from diffusers import MotionAdapter

    torch.manual_seed(3)
    adapter = MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_norm_num_groups=4,
        motion_num_attention_heads=2,
        motion_max_seq_length=context,
        use_motion_mid_block=False,
    )
    _randomise(adapter, 3).save_pretrained(folder)
    return folder


def tiny_controlnet(folder: Path) -> Path:
    """A ControlNet for `tiny_sd15`; its output is as strong as the UNet's own."""
    from diffusers import ControlNetModel

    torch.manual_seed(4)
    model = ControlNetModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        cross_attention_dim=CROSS_DIM,
        attention_head_dim=4,
        norm_num_groups=4,
        conditioning_embedding_out_channels=(4, 8, 8, 8),
    )
    _randomise(model, 4).save_pretrained(folder)
    return folder


def tiny_ip_adapter(folder: Path) -> Path:
    """h94/IP-Adapter's layout, for `tiny_sd15`: weights of SD 1.5's adapter and the image encoder beside it."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(5)
    dim, tokens = 12, 4
    tensors = {
        "image_proj.proj.weight": torch.randn(tokens * CROSS_DIM, dim),
        "image_proj.proj.bias": torch.zeros(tokens * CROSS_DIM),
        "image_proj.norm.weight": torch.ones(CROSS_DIM),
        "image_proj.norm.bias": torch.zeros(CROSS_DIM),
    }
    # One pair for each cross-attention: down, up, up, mid, as the published file counts them.
    for number, channels in zip((1, 3, 5, 7), (8, 8, 8, 16), strict=True):
        for letter in "kv":
            tensors[f"ip_adapter.{number}.to_{letter}_ip.weight"] = torch.randn(channels, CROSS_DIM)
    (folder / "models").mkdir(parents=True)
    save_file(tensors, folder / "models" / "ip-adapter_sd15.safetensors")
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=224,
        patch_size=56,
        projection_dim=dim,
    )
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "models" / "image_encoder")
    CLIPImageProcessor().save_pretrained(folder / "models" / "image_encoder")
    return folder


def tiny_wan_vace(folder: Path, *, two_stages: bool = False) -> Path:
    """Wan VACE's layout, of one transformer (2.1) or two (2.2)."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanVACETransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    for seed, name in enumerate(("transformer", "transformer_2")[: 1 + two_stages]):
        torch.manual_seed(6 + seed)
        transformer = WanVACETransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=CROSS_DIM,
            freq_dim=32,
            ffn_dim=32,
            num_layers=3,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
            vace_layers=[0, 2],
            vace_in_channels=96,
        )
        _randomise(transformer, 6 + seed).save_pretrained(folder / name)
    torch.manual_seed(9)
    _randomise(
        AutoencoderKLWan(
            base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        ),
        9,
    ).save_pretrained(folder / "vae")
    _unigram_tokenizer(folder / "tokenizer")
    text = UMT5Config(vocab_size=64, d_model=CROSS_DIM, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    UMT5EncoderModel(text).save_pretrained(folder / "text_encoder")
    UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
    ).save_pretrained(folder / "scheduler")
    model = ["diffusers", "WanVACETransformer3DModel"]
    _index(
        folder,
        "WanVACEPipeline",
        transformer=model,
        transformer_2=model if two_stages else [None, None],
        vae=["diffusers", "AutoencoderKLWan"],
        scheduler=["diffusers", "UniPCMultistepScheduler"],
    )
    if two_stages:
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, "boundary_ratio": 0.875}))
    return folder


def tiny_small(folder: Path) -> Path:
    """The bundled generator's layout, with random weights."""
    from depth2video.generators.controlnet import ControlledUNet, DepthControlNet
    from depth2video.generators.small import OUT_CHANNELS, SmallSpec

    torch.manual_seed(10)
    spec = SmallSpec()
    unet = ControlledUNet(
        in_channels=2 * 3 * spec.patch**2,
        out_channels=OUT_CHANNELS * spec.patch**2,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        block_out_channels=(32, 32),
        layers_per_block=1,
        cross_attention_dim=CROSS_DIM,
        num_attention_heads=(2, 2),
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
    )
    controlnet = DepthControlNet.from_unet(unet, (4, 8, 8), carries_motion=True)
    _randomise(unet, 10).save_pretrained(folder / "unet")
    _randomise(controlnet, 11).save_pretrained(folder / "controlnet")
    spec.write(folder)
    return folder


@pytest.fixture(scope="session")
def small_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny small generator; read only."""
    return tiny_small(tmp_path_factory.mktemp("small") / "small")


@pytest.fixture(scope="session")
def svd_folders(svd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny SVD and a depth ControlNet for it; read only."""
    from depth2video.generators.controlnet import ControlledUNet, DepthControlNet

    unet = ControlledUNet.from_config(ControlledUNet.load_config(svd_folder / "unet"))
    folder = tmp_path_factory.mktemp("svd") / "controlnet"
    _randomise(DepthControlNet.from_unet(unet, (4, 8, 8, 8)), 12).save_pretrained(folder)
    return {"base": svd_folder, "controlnet": folder}


@pytest.fixture(scope="session")
def animatediff_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny parts of AnimateDiff; read only."""
    folder = tmp_path_factory.mktemp("animatediff")
    return {
        "base": tiny_sd15(folder / "sd15"),
        "motion_adapter": tiny_motion_adapter(folder / "motion"),
        "controlnet": tiny_controlnet(folder / "controlnet"),
        "ip_adapter": tiny_ip_adapter(folder / "ip"),
    }


@pytest.fixture(scope="session")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan 2.1 VACE; read only."""
    return tiny_wan_vace(tmp_path_factory.mktemp("wan") / "vace")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 frames of 64x48 at 25 fps with sound."""
    folder = tmp_path_factory.mktemp("clip")
    silent, clip = make_clip(folder / "silent.mp4"), folder / "clip.mp4"
    run_ffmpeg("-i", silent, "-f", "lavfi", "-i", "sine=duration=0.48", "-c:v", "copy", "-c:a", "aac", clip)
    return clip


def moving_disparity(count: int, height: int, width: int) -> np.ndarray:
    """A near block that moves over a slanted ground, float32 `[T, H, W]` in [0, 1]."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    frames = np.repeat((0.1 + 0.4 * y)[None], count, axis=0)
    for index in range(count):
        left = int((width * 0.5) * index / count)
        frames[index, height // 4 : height // 2, left : left + width // 3] = 0.9
    return (frames + 0.01 * x).astype(np.float32)


def moving_control(count: int, height: int, width: int) -> list[np.ndarray]:
    """The same as control frames."""
    from depth2video.control import DisparityRange, to_control

    return [to_control(frame, DisparityRange(0.0, 1.0)) for frame in moving_disparity(count, height, width)]


@pytest.fixture(scope="session")
def depth_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Depth of `clip`, 12 frames of 64x48, with its sidecar."""
    values = moving_disparity(12, 48, 64)
    video = DepthVideo(values, "disparity", np.arange(12) / 25, 25)  # type: ignore[arg-type]
    return video.save(tmp_path_factory.mktemp("depth") / "depth.npy")
