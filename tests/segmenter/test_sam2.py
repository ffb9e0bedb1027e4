"""EVF-SAM2: shapes of the released size on the meta device, data flow on a small one."""

import torch
from tiny import picture
from transformers import Sam2Config

from saliency_r1.segmenter.beit3 import Beit3Config
from saliency_r1.segmenter.sam2 import EvfSam2, EvfSam2Config, full_size, sam2_view

SMALL = Sam2Config(
    vision_config={
        "model_type": "sam2_vision_model",
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "num_attention_heads": 1,
            "image_size": [64, 64],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 2, 4, 8],
            "window_size_per_stage": [4, 4, 4, 2],
            "global_attention_blocks": [3],
            "window_positional_embedding_background_size": [2, 2],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    },
    prompt_encoder_config={"image_size": 64, "hidden_size": 32},
    mask_decoder_config={"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
)


def test_released_sizes_on_the_meta_device():
    with torch.device("meta"):
        model = EvfSam2(EvfSam2Config())
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert sizes["mm_extractor"] + sizes["text_hidden_fcs"] == 2_696_057_856 // 4
    # The released file has about 224.4 M more; the difference to SAM 2's image part is the memory of its video part.
    assert 212_000_000 < sizes["visual_model"] < 224_400_000


def test_data_flow():
    torch.manual_seed(0)
    for multimask in (True, False):
        config = EvfSam2Config(Beit3Config(32, 16, 50, 32, 2, 48, 2, 40), SMALL, 32, multimask)
        model = EvfSam2(config).eval()
        with torch.inference_mode():
            views = torch.stack([sam2_view(picture(40, 30, seed), 64, multimask) for seed in (0, 1)])
            features = model.embed_images(views)
            assert [tuple(f.shape) for f in features] == [(2, 4, 16, 16), (2, 8, 8, 8), (2, 32, 4, 4)]
            ids = torch.tensor([[0, 5, 2], [0, 6, 2]])
            prompts = model.embed_prompts(torch.randn(2, 3, 32, 32), ids, torch.zeros_like(ids, dtype=torch.bool))
            low, score = model.decode(features, prompts)
            alone, _ = model.decode([f[1:] for f in features], prompts[1:])
        assert low.shape == (2, 16, 16)
        assert score.shape == (2,)
        assert torch.allclose(low[1:], alone, atol=1e-5)
        assert full_size(low, (30, 40)).shape == (2, 30, 40)
