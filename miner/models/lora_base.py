"""Which base model a LoRA is for, by the names and shapes of its tensors. Pure; reads no tensor.

The names are those that ComfyUI's `comfy/lora.py` (0.3.64 and 0.33.0) knows: kohya's (`lora_unet_double_blocks_0_…`),
diffusers' (`transformer.single_transformer_blocks.0.…`), and the model's own (`diffusion_model.double_blocks.0.…`).
Where two bases share names, widths and the number of blocks tell them apart: FLUX.1 has 19 double and 38 single blocks
of width 3072, HunyuanVideo 20 and 40.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from miner.workflows.lora_names import LoraBase

MOST_TENSORS = 100_000

_LORA = re.compile(
    r"lora|hada_w|lokr_w|oft_|dora_scale|\.diff(_b)?\Z|\.set_weight\Z|\.[ab][12]\.weight\Z|\.[wb]_norm\Z", re.IGNORECASE
)
_IN = re.compile(
    r"(lora_?(down|a)|lora_linear_layer\.down|lora[12]?\.down|\.down)(\.default)?\.?(weight)?\Z", re.IGNORECASE
)
_OUT = re.compile(r"(lora_?(up|b)|lora_linear_layer\.up|lora[12]?\.up|\.up)(\.default)?\.?(weight)?\Z", re.IGNORECASE)
_UNET = re.compile(r"(?<![a-z])(down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block)_")
_CROSS_WIDTHS: Mapping[int, LoraBase] = {768: "sd15", 1024: "sd2", 2048: "sdxl"}
_WAN_WIDTHS: Mapping[int, LoraBase] = {1536: "wan-1.3b", 3072: "wan-5b", 5120: "wan-14b"}
_NAMED: tuple[tuple[str, LoraBase], ...] = (
    (r"joint_transformer_blocks_\d", "auraflow"),
    (r"joint_blocks_\d", "sd3"),
    (r"(double|single)_stream_blocks_\d", "hidream"),
    (r"attn_(qkv|proj)_[xy](_|\Z)", "mochi"),
    (r"individual_token_refiner", "hunyuan-video"),
    (r"to_qkv_mlp_proj|double_stream_modulation|single_stream_modulation", "flux2"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the tensors of a file are. `base` is None where they do not tell."""

    is_lora: bool
    base: LoraBase | None = None


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str  # in lower case, with `_` for `.`
    dotted: str
    shape: tuple[int, ...]

    @property
    def width_in(self) -> int:
        """Of the layer that it changes; 0: unknown."""
        return self.shape[1] if len(self.shape) >= 2 and _IN.search(self.dotted) else 0

    @property
    def width_out(self) -> int:
        return self.shape[0] if len(self.shape) >= 2 and _OUT.search(self.dotted) else 0


def kind_of_header(header: bytes) -> Kind:
    """By the JSON of a safetensors file. One that cannot be read is no LoRA."""
    try:
        tensors = json.loads(header)
        shapes = {name: tuple(int(n) for n in one["shape"]) for name, one in tensors.items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Kind(is_lora=False)
    return kind_of(shapes)


def kind_of(shapes: Mapping[str, tuple[int, ...]]) -> Kind:
    """By tensor name → shape."""
    if not any(_LORA.search(name) for name in shapes) or len(shapes) > MOST_TENSORS:
        return Kind(is_lora=False)
    tensors = [_Tensor(name.lower().replace(".", "_"), name.lower(), shape) for name, shape in shapes.items()]
    return Kind(is_lora=True, base=_base(tensors))


def _base(tensors: list[_Tensor]) -> LoraBase | None:
    names = [tensor.name for tensor in tensors]
    if any(_UNET.search(name) for name in names):
        return _unet(tensors)
    for pattern, base in _NAMED:
        if any(re.search(pattern, name) for name in names):
            return base
    if any(re.search(r"double_blocks_\d|single_blocks_\d|single_transformer_blocks_\d", name) for name in names):
        return _flux_like(tensors)
    if any(re.search(r"transformer_blocks[._]\d", tensor.dotted) for tensor in tensors):  # not Wan's transformer.blocks
        return _diffusers_transformer(tensors)
    if any(re.search(r"blocks_\d+_(self_attn|cross_attn)_|blocks_\d+_(attn[12]|ffn)_", name) for name in names):
        width = _usual(tensors, r"(self_attn_q|attn1_to_q|cross_attn_q|attn2_to_q|ffn_0|ffn_net_0_proj)_")
        return _WAN_WIDTHS.get(width, "wan")
    if any(re.search(r"layers_\d+_(attention|feed_forward)_", name) for name in names):
        width = _usual(tensors, r"attention_(qkv|to_q|to_k|to_v|wq)_|feed_forward_w[13]_")
        return {3840: "z-image", 2304: "lumina2"}.get(width)  # type: ignore[return-value]
    return None


def _unet(tensors: list[_Tensor]) -> LoraBase:
    widths = [_CROSS_WIDTHS[w] for t in tensors if "attn2_to_k" in t.name and (w := t.width_in) in _CROSS_WIDTHS]
    if widths:
        return widths[0]
    names = [tensor.name for tensor in tensors]
    if any(re.search(r"lora_te2_|text_encoder_2_|transformer_blocks_[1-9]|add_embedding", name) for name in names):
        return "sdxl"
    return "sd"


def _flux_like(tensors: list[_Tensor]) -> LoraBase | None:
    """Double and single blocks: FLUX.1, FLUX.2 and HunyuanVideo."""
    width = _usual(tensors, r"(img_attn_qkv|txt_attn_qkv|img_mlp_0|img_mlp_fc1|attn_to_q|proj_mlp|linear1)_")
    if width not in (0, 3072):
        return "flux2"
    outs = {t.width_out for t in tensors if re.search(r"single_blocks_\d+_linear1_", t.name)} - {0}
    if outs and 21504 not in outs:
        return "flux2"
    own = re.compile(r"(img|txt)_(mlp_fc|mod_linear)|modulation_linear|token_refiner|\.(img|txt)_attn_(qkv|proj)")
    if any(own.search(t.dotted) or own.search(t.name) for t in tensors):
        return "hunyuan-video"
    double, single = _highest(tensors, "double_blocks"), _highest(tensors, "single_blocks")
    double = max(double, _highest(tensors, r"(?<!single_)transformer_blocks"))
    single = max(single, _highest(tensors, "single_transformer_blocks"))
    return "hunyuan-video" if double >= 19 or single >= 38 else "flux"


def _diffusers_transformer(tensors: list[_Tensor]) -> LoraBase | None:
    """Blocks of one kind, as diffusers names them."""
    names = [tensor.name for tensor in tensors]
    width = _usual(tensors, r"(attn1?_to_[qkv]|attn_add_[qkv]_proj|img_mlp_net_0_proj)_")
    if any(re.search(r"(img|txt)_(mlp|mod)_", name) for name in names):
        return "qwen-image"
    if width in (1536, 2432):
        return "sd3"
    if any("_attn1_" in name for name in names):
        mochi = width == 3072 and any("attn1_add_" in name for name in names)
        return "mochi" if mochi else "ltx" if width in (2048, 4096) else None
    if width == 3072 and any("_attn_" in name for name in names):
        return "qwen-image" if _highest(tensors, "transformer_blocks") >= 19 else "flux"
    return None


def _usual(tensors: list[_Tensor], layers: str) -> int:
    """The input width of these layers; 0: unknown."""
    widths = [t.width_in for t in tensors if re.search(layers, t.name) and t.width_in]
    return max(set(widths), key=widths.count, default=0)


def _highest(tensors: list[_Tensor], blocks: str) -> int:
    return max(_numbers(tensors, blocks), default=-1)


def _numbers(tensors: list[_Tensor], blocks: str) -> Iterator[int]:
    for tensor in tensors:
        if found := re.search(rf"{blocks}_(\d+)", tensor.name):
            yield int(found[1])
