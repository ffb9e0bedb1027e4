from pathlib import Path

import pytest
import torch
from tiny import SHARED, TINY

from saliency_r1.segmenter import EvfSamSegmenter, loading
from saliency_r1.segmenter.evf_sam import EvfSam


@pytest.fixture(scope="session")
def golden() -> Path:
    folder = SHARED / "golden" / "evf_sam"
    if not folder.is_dir():
        pytest.skip("golden data of EVF-SAM are not at hand")
    return folder


@pytest.fixture(scope="session")
def pieces(tmp_path_factory) -> Path:
    """A small sentencepiece model with BEiT-3's order: unknown, begin, end."""
    import sentencepiece

    lines = [f"the {size} {shape}" for size in ("large", "small") for shape in ("ring", "star", "circle", "square")]
    prefix = tmp_path_factory.mktemp("pieces") / "sentencepiece.bpe"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 20),
        model_prefix=str(prefix),
        vocab_size=60,
        hard_vocab_limit=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    return prefix.with_suffix(".bpe.model")


@pytest.fixture(scope="session")
def network() -> EvfSam:
    """Random weights, also where the original starts at zero or one."""
    torch.manual_seed(3)
    model = EvfSam(TINY)
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.2 * torch.randn_like(parameter) / max(1, parameter[0].numel()) ** 0.5
    return model.eval()


@pytest.fixture(scope="session")
def folder(network, pieces, tmp_path_factory) -> Path:
    """The random model as a folder in float32."""
    path = tmp_path_factory.mktemp("weights")
    loading.save_folder(network, pieces, path, torch.float32)
    return path


@pytest.fixture(scope="session")
def segmenter(folder) -> EvfSamSegmenter:
    return loading.load(folder)
