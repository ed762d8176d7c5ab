"""The base of a LoRA, by tensor names as trainers write them: kohya, diffusers, ai-toolkit, musubi, XLabs, LyCORIS."""

from __future__ import annotations

import json

import pytest

from miner.models.lora_base import Kind, kind_of, kind_of_header

TENSORS: dict[str, tuple[list[tuple[str, tuple[int, ...]]], str | None]] = {
    "kohya flux": ([("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", (16, 3072))], "flux"),
    "kohya flux mlp": ([("lora_unet_double_blocks_18_img_mlp_0.lora_down.weight", (16, 3072))], "flux"),
    "kohya flux single": ([("lora_unet_single_blocks_37_linear1.lora_up.weight", (21504, 16))], "flux"),
    "diffusers flux": ([("transformer.single_transformer_blocks.37.attn.to_q.lora_A.weight", (16, 3072))], "flux"),
    "diffusers flux, double alone": (
        [("transformer.transformer_blocks.3.attn.add_k_proj.lora_A.weight", (4, 3072))],
        "flux",
    ),
    "ai-toolkit flux": ([("diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight", (16, 3072))], "flux"),
    "XLabs flux": ([("double_blocks.0.processor.qkv_lora1.down.weight", (16, 3072))], "flux"),
    "OneTrainer flux": (
        [("lora_transformer_single_transformer_blocks_0_attn_to_q.lora_down.weight", (16, 3072))],
        "flux",
    ),
    "peft flux": (
        [("base_model.model.single_transformer_blocks.0.attn.to_q.lora_A.default.weight", (8, 3072))],
        "flux",
    ),
    "lokr flux": ([("lycoris_double_blocks_0_img_attn_qkv.lokr_w1", (4, 4))], "flux"),
    "flux.2 dev": ([("diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight", (16, 6144))], "flux2"),
    "flux.2 klein 4B": ([("diffusion_model.single_blocks.0.linear1.lora_B.weight", (27648, 16))], "flux2"),
    "flux.2 diffusers": (
        [("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj.lora_A.weight", (8, 3072))],
        "flux2",
    ),
    "hunyuan": ([("transformer.double_blocks.0.img_attn_qkv.lora_A.weight", (16, 3072))], "hunyuan-video"),
    "hunyuan musubi": ([("lora_unet_double_blocks_0_img_mlp_fc1.lora_down.weight", (16, 3072))], "hunyuan-video"),
    "hunyuan by its number of blocks": (
        [("diffusion_model.single_blocks.39.linear1.lora_A.weight", (8, 3072))],
        "hunyuan-video",
    ),
    "kohya sd15": (
        [("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", (4, 768))],
        "sd15",
    ),
    "kohya sd2": (
        [("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", (4, 1024))],
        "sd2",
    ),
    "kohya sdxl": (
        [("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight", (8, 2048))],
        "sdxl",
    ),
    "sdxl by depth": ([("lora_unet_middle_block_1_transformer_blocks_9_ff_net_2.lora_down.weight", (8, 5120))], "sdxl"),
    "diffusers sdxl": (
        [("unet.up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight", (8, 2048))],
        "sdxl",
    ),
    "stable diffusion, which": ([("lora_unet_up_blocks_1_resnets_0_conv1.lora_down.weight", (8, 64, 3, 3))], "sd"),
    "sd3": ([("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", (8, 1536))], "sd3"),
    "kohya sd3": ([("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight", (8, 1536))], "sd3"),
    "wan 14B": ([("diffusion_model.blocks.0.self_attn.q.lora_A.weight", (32, 5120))], "wan-14b"),
    "wan 1.3B": ([("lora_unet_blocks_0_cross_attn_q.lora_down.weight", (32, 1536))], "wan-1.3b"),
    "wan 5B": ([("diffusion_model.blocks.29.ffn.0.lora_down.weight", (32, 3072))], "wan-5b"),
    "wan diffusers": ([("transformer.blocks.0.attn1.to_q.lora_A.weight", (32, 5120))], "wan-14b"),
    "wan lokr": ([("diffusion_model.blocks.0.self_attn.q.lokr_w1", (4, 4))], "wan"),
    "mochi": (
        [
            ("transformer_blocks.0.attn1.add_q_proj.lora_A.weight", (16, 3072)),
            ("transformer_blocks.0.attn1.to_q.lora_A.weight", (16, 3072)),
        ],
        "mochi",
    ),
    "mochi, its own names": ([("diffusion_model.blocks.0.attn.qkv_x.lora_A.weight", (16, 3072))], "mochi"),
    "ltx": ([("diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight", (32, 2048))], "ltx"),
    "qwen": ([("transformer.transformer_blocks.0.img_mlp.net.0.proj.lora_A.weight", (16, 3072))], "qwen-image"),
    "qwen by its number of blocks": (
        [("transformer_blocks.59.attn.to_q.lora_A.default.weight", (16, 3072))],
        "qwen-image",
    ),
    "z-image": ([("diffusion_model.layers.0.attention.to_q.lora_A.weight", (16, 3840))], "z-image"),
    "hidream": ([("diffusion_model.double_stream_blocks.0.block.attn1.to_q.lora_A.weight", (16, 2560))], "hidream"),
    "a text encoder alone": ([("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", (8, 768))], None),
    "of a model that is not known": ([("diffusion_model.novel.0.lora_A.weight", (8, 999))], None),
}


@pytest.mark.parametrize("what", TENSORS)
def test_the_base_of_a_lora_by_its_tensors(what: str) -> None:
    tensors, base = TENSORS[what]
    assert kind_of(dict(tensors)) == Kind(is_lora=True, base=base)  # type: ignore[arg-type]


def test_the_unet_counts_where_text_encoders_come_along() -> None:
    tensors = {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (8, 768),
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (16, 3072),
    }
    assert kind_of(tensors).base == "flux"


@pytest.mark.parametrize(
    "header",
    [
        {"double_blocks.0.img_attn.qkv.weight": {"shape": [9216, 3072]}},  # a whole model
        {},
        {"a.lora_A.weight": {"shape": "x"}},
        {"a.lora_A.weight": {}},
        {"a.lora_A.weight": None},
        [],
        7,
    ],
)
def test_what_is_no_lora(header: object) -> None:
    assert not kind_of_header(json.dumps(header).encode()).is_lora


def test_a_header_that_nests_without_end_is_no_lora() -> None:
    assert not kind_of_header(b'{"a":' * 100_000).is_lora
