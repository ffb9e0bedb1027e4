"""A folder for each family: random weights, a tokenizer of bytes, and a processor; nothing is fetched."""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from saliency_r1.policy.families import FAMILIES

QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
        "<|image_pad|>", "<|video_pad|>")  # fmt: skip
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 2048, "initializer_range": 0.2,
}  # fmt: skip
VISION = {"hidden_size": 32, "intermediate_size": 48, "patch_size": 8, "initializer_range": 0.2}
LAYERS = 2
TILE = 32  # pixels of a side, of InternVL's and SmolVLM2's tiles and of Gemma 3's images: 4 tokens


def chat(image: str, begin: str, end: str, answer: str, first: str = "") -> str:
    """A chat template: what stands for an image, and what stands around a turn."""
    return (
        f"{first}{{% for message in messages %}}{begin}{{{{ message['role'] }}}}\n"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        f"{image}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}{end}\n{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{answer}{{% endif %}}"
    )


QWEN_CHAT = ("<|im_start|>", "<|im_end|>", "<|im_start|>assistant\n")


def tokenizer(special, words=(), **named):
    """One token a byte, and the special ones; `words` are tokens of their own, but not special."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    plain.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    return PreTrainedTokenizerFast(tokenizer_object=plain, **named)


def qwen2_5_vl():
    words = tokenizer(QWEN, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    ids = words.get_vocab()
    vision = {"patch_size": 8, "temporal_patch_size": 2, "merge_size": 2}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**vision), words, Qwen2VLVideoProcessor(**vision),
        chat_template=chat("<|vision_start|><|image_pad|><|vision_end|>", *QWEN_CHAT),
    )  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, "vocab_size": len(words), "rope_parameters": rope},
        vision_config={
            **VISION, "depth": 2, "num_heads": 4, "out_hidden_size": 32, "fullatt_block_indexes": [1],
            "window_size": 32,
        },
        **qwen_ids(ids),
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config), processor


def qwen_ids(ids):
    return {
        "image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"], "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }  # fmt: skip


def qwen3_vl():
    words = tokenizer(QWEN, ("<think>", "</think>"), pad_token="<|endoftext|>", eos_token="<|im_end|>")
    ids = words.get_vocab()
    vision = {"patch_size": 8, "temporal_patch_size": 2, "merge_size": 2}
    begin, end, answer = QWEN_CHAT
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(**vision), words, Qwen3VLVideoProcessor(**vision),
        chat_template=chat("<|vision_start|><|image_pad|><|vision_end|>", begin, end, answer + "<think>\n"),
    )  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0, "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={**TEXT, "vocab_size": len(words), "rope_parameters": rope},
        vision_config={
            **VISION, "depth": 2, "num_heads": 4, "out_hidden_size": 32, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        **qwen_ids(ids),
    )  # fmt: skip
    return Qwen3VLForConditionalGeneration(config), processor


def internvl():
    own = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
           "video_token": "<video>"}  # fmt: skip
    words = tokenizer(
        (*QWEN[:3], *own.values()), pad_token="<|endoftext|>", eos_token="<|im_end|>", extra_special_tokens=own
    )
    side = {"height": TILE, "width": TILE}
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=side, crop_to_patches=True), words, InternVLVideoProcessor(size=side),
        image_seq_length=4, chat_template=chat("<IMG_CONTEXT>\n", *QWEN_CHAT),
    )  # fmt: skip
    config = InternVLConfig(
        text_config={"model_type": "qwen2", **TEXT, "vocab_size": len(words)},
        vision_config={**VISION, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": TILE},
        image_token_id=words.get_vocab()["<IMG_CONTEXT>"], image_seq_length=4, downsample_ratio=0.5,
    )  # fmt: skip
    return InternVLForConditionalGeneration(config), processor


def smolvlm():
    own = {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>",
           "global_image_token": "<global-img>", "end_of_utterance_token": "<end_of_utterance>"}  # fmt: skip
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    words = tokenizer(
        (*QWEN[:3], *own.values(), *tiles), pad_token="<|im_end|>", eos_token="<end_of_utterance>",
        extra_special_tokens=own,
    )  # fmt: skip
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE}), words,
        SmolVLMVideoProcessor(size={"longest_edge": TILE}, max_image_size={"longest_edge": TILE}),
        image_seq_len=4, chat_template=chat("<image>", "", "<end_of_utterance>", "Assistant:", "<|im_start|>"),
    )  # fmt: skip
    config = SmolVLMConfig(
        text_config={
            "model_type": "llama", **TEXT, "vocab_size": len(words), "pad_token_id": words.pad_token_id,
            "bos_token_id": 1, "eos_token_id": words.eos_token_id,
        },
        vision_config={**VISION, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": TILE},
        image_token_id=words.get_vocab()["<image>"], scale_factor=2,
    )  # fmt: skip
    return SmolVLMForConditionalGeneration(config), processor


def gemma3():
    own = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    words = tokenizer(
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", *own.values()), pad_token="<pad>",
        eos_token="<eos>", bos_token="<bos>", extra_special_tokens=own,
    )  # fmt: skip
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size={"height": TILE, "width": TILE}), words, image_seq_length=4,
        chat_template=chat("<start_of_image>", "<start_of_turn>", "<end_of_turn>", "<start_of_turn>model\n", "<bos>"),
    )  # fmt: skip
    config = Gemma3Config(
        # A window shorter than the prompts, so that layers of both kinds are what they are.
        text_config={
            **TEXT, "vocab_size": len(words), "sliding_window": 16, "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        vision_config={
            **VISION, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": TILE, "vision_use_head": False,
        },
        mm_tokens_per_image=4, image_token_id=words.get_vocab()["<image_soft_token>"],
        boi_token_index=words.get_vocab()["<start_of_image>"], eoi_token_index=words.get_vocab()["<end_of_image>"],
    )  # fmt: skip
    model = Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(
        model.model.multi_modal_projector.mm_input_projection_weight, std=0.2
    )  # else 0: images say nothing
    return model, processor


def write(kind: str, folder: Path) -> Path:
    """The folder of a family's tiny model."""
    torch.manual_seed(0)
    model, processor = {"qwen2_5_vl": qwen2_5_vl, "qwen3_vl": qwen3_vl, "internvl": internvl, "smolvlm": smolvlm,
                        "gemma3": gemma3}[kind]()  # fmt: skip
    assert model.config.model_type == kind
    assert kind in FAMILIES
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
