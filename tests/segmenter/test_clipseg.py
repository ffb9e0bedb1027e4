"""Another model behind the same interface, on tiny random weights."""

import numpy as np
import pytest
from tiny import PHRASES, close, picture

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def clipseg(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPSegConfig,
        CLIPSegForImageSegmentation,
        CLIPSegProcessor,
        PreTrainedTokenizerFast,
        ViTImageProcessor,
    )

    from saliency_r1.segmenter.clipseg import ClipSegSegmenter

    words = ["<pad>", "<start>", "<end>", "<unk>", "the", "ring", "star", "and", "circle"]
    plain = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    from tokenizers.processors import TemplateProcessing

    plain.post_processor = TemplateProcessing("<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", model_max_length=16
    )
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = CLIPSegConfig(
        text_config={**sizes, "vocab_size": 9, "max_position_embeddings": 16, "eos_token_id": 2, "bos_token_id": 1},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=16,
        reduce_dim=8,
        extract_layers=[0, 1],
        conditional_layer=0,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    transformers.set_seed(0)
    model = CLIPSegForImageSegmentation(config)
    processor = CLIPSegProcessor(ViTImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    return ClipSegSegmenter(model, processor, batch_phrases=4)


def test_same_contract(clipseg):
    images = [picture(40, 30), picture(1, 1), picture(20, 50, 2)]
    phrases = [PHRASES, ["the ring"], []]
    answers = clipseg.segment(clipseg.encode(images), phrases)
    assert [len(row) for row in answers] == [5, 1, 0]
    for image, row, segments in zip(images, phrases, answers):
        for phrase, segment in zip(row, segments):
            assert segment.logits.shape == (image.height, image.width)
            assert segment.logits.dtype == np.float32
            assert 0 <= segment.score <= 1
            assert close(segment, clipseg.segment(clipseg.encode([image]), [[phrase]])[0][0])


def test_nothing_to_do(clipseg):
    assert clipseg.encode([]) == []
    assert clipseg.segment([], []) == []
