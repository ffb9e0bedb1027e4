"""What a folder of weights must hold, and what is said when it does not."""

import json
import shutil

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY

from saliency_r1.segmenter import WeightsError, from_pretrained, load
from saliency_r1.segmenter.evf_sam import EvfSam, EvfSamConfig
from saliency_r1.segmenter.tokenizer import Tokenizer, pad

OFFICIAL = {
    "model_type": "evf",
    "sam_scale": "huge",
    "mm_extractor_scale": "large",
    "hidden_size": 1024,
    "out_dim": 256,
}


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_released_sizes_on_the_meta_device():
    with torch.device("meta"):
        state = EvfSam(EvfSamConfig.from_dict(OFFICIAL)).state_dict()
    assert len(state) == 1569
    assert sum(tensor.numel() for tensor in state.values()) == 1_315_105_328
    parts = {"visual_model.": (594, 641_090_864), "mm_extractor.beit3.": (971, 672_702_464)}
    parts |= {"text_hidden_fcs.": (4, 1_312_000)}
    for prefix, expected in parts.items():
        found = [tensor.numel() for name, tensor in state.items() if name.startswith(prefix)]
        assert (len(found), sum(found)) == expected
    assert state["visual_model.image_encoder.blocks.7.attn.rel_pos_h"].shape == (127, 80)
    assert state["mm_extractor.beit3.encoder.embed_positions.A.weight"].shape == (199, 1024)


def test_configuration_round_trip():
    assert EvfSamConfig.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY


def test_unknown_scale(copy):
    (copy / "config.json").write_text(json.dumps({**OFFICIAL, "sam_scale": "base"}))
    with pytest.raises(WeightsError, match="SAM scale 'base'"):
        load(copy)


def test_pickle_and_half_precision(copy, network):
    (copy / "model.safetensors").unlink()
    torch.save({name: value.half() for name, value in network.state_dict().items()}, copy / "pytorch_model.bin")
    for name, value in from_pretrained(str(copy)).model.state_dict().items():
        assert torch.equal(value, network.state_dict()[name].half().float())


def test_pickle_runs_no_code(copy):
    (copy / "model.safetensors").unlink()
    torch.save({"weights": shutil.rmtree}, copy / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        load(copy)


def test_wrong_tensors_are_named(copy):
    tensors = load_file(copy / "model.safetensors")
    tensors["text_hidden_fcs.0.3.weight"] = tensors.pop("text_hidden_fcs.0.2.weight")
    tensors["mm_extractor.beit3.text_embed.weight"] = torch.zeros(7, 32)
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(WeightsError) as error:
        load(copy)
    for part in (
        "1 missing: text_hidden_fcs.0.2.weight",
        "1 surplus: text_hidden_fcs.0.3.weight",
        "mm_extractor.beit3.text_embed.weight (7, 32) instead of (320, 32)",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "sentencepiece.bpe.model"])
def test_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(WeightsError, match=name):
        load(copy)


def test_the_hub_needs_a_revision():
    with pytest.raises(WeightsError, match="pin a revision"):
        from_pretrained("YxZhang/evf-sam")


def test_foreign_vocabulary_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    config["beit3"]["vocab_size"] = 20
    (copy / "config.json").write_text(json.dumps(config))
    tensors = load_file(copy / "model.safetensors")
    name = "mm_extractor.beit3.text_embed.weight"
    save_file({**tensors, name: tensors[name][:20].clone()}, copy / "model.safetensors")
    with pytest.raises(WeightsError, match="not BEiT-3's own"):
        load(copy)


@pytest.mark.parametrize("file", ["added_tokens.json", "tokenizer_config.json"])
def test_semantic_token(copy, file):
    token = {"[semantic]": 302}
    content = token if file == "added_tokens.json" else {"added_tokens_decoder": {"302": {"content": "[semantic]"}}}
    (copy / file).write_text(json.dumps(content))
    tokenizer = load(copy).tokenizer
    assert tokenizer.encode("[semantic] ring") == [0, 302, *tokenizer.encode("ring")[1:]]


class TestIds:
    def test_rule(self, pieces):
        tokenizer = Tokenizer(pieces, 38)
        raw = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
        assert tokenizer.encode("the ring") == [0, *(piece + 1 for piece in raw.encode("the ring")), 2]
        assert tokenizer.encode("") == [0, 2]
        assert tokenizer.encode("☃") == [0, *(3 if piece == 0 else piece + 1 for piece in raw.encode("☃")), 2]
        assert 3 in tokenizer.encode("☃")

    def test_cut_at_the_position_table(self, pieces):
        ids = Tokenizer(pieces, 12).encode("the ring " * 50)
        assert len(ids) == 12
        assert (ids[0], ids[-1]) == (0, 2)

    def test_same_as_transformers(self, pieces):
        from transformers import XLMRobertaTokenizer

        raw = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
        special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
        words = [(raw.id_to_piece(i), raw.get_score(i)) for i in range(3, raw.get_piece_size())]
        theirs = XLMRobertaTokenizer(vocab=[*special, *words, ("<mask>", 0.0)])
        ours = Tokenizer(pieces, 38)
        for text in ("the ring", "the large star", "a  small   circle"):
            assert theirs(text)["input_ids"] == ours.encode(text)

    def test_padding(self):
        ids, padding = pad([[0, 5, 2], [0, 2]])
        assert ids.tolist() == [[0, 5, 2], [0, 2, 1]]
        assert padding.tolist() == [[False] * 3, [False, False, True]]
