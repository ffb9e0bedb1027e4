"""Our EVF-SAM against stored inputs and outputs of the official modules."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from saliency_r1.segmenter.evf_sam import EvfSam, EvfSamConfig
from saliency_r1.segmenter.preprocess import beit_view, full_size, sam_view


@pytest.fixture(scope="module")
def outputs(golden):
    """The stored arrays and ours, by name."""
    folder = golden / "model"
    config = EvfSamConfig.from_dict(json.loads((folder / "config.json").read_text()))
    model = EvfSam(config).eval()
    model.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
    image = Image.open(folder / "image.png")
    ids = torch.from_numpy(np.load(folder / "input_ids.npy"))
    padding = torch.from_numpy(np.load(folder / "padding_mask.npy"))
    side = config.sam_image_encoder.img_size
    got = {}
    with torch.inference_mode():
        got["sam_view"], inner = sam_view(image, side)
        got["resize_shape"] = torch.tensor(inner)
        got["beit_view"] = beit_view(image, config.beit3.img_size)
        got["image_embedding"] = model.embed_images(got["sam_view"][None])[0]
        got["dense_pe"] = model.visual_model.prompt_encoder.get_dense_pe()[0]
        views = got["beit_view"].expand(len(ids), -1, -1, -1)
        got["beit3_cls"] = model.mm_extractor.beit3(views, ids, padding)
        got["projected_prompt"] = model.embed_prompts(views, ids, padding)
        got["low_res_logits"], iou = model.decode(
            got["image_embedding"].expand(len(ids), -1, -1, -1), got["projected_prompt"]
        )
        got["iou_predictions"] = iou[:, None]
        got["full_res_logits"] = full_size(got["low_res_logits"], side, inner, (image.height, image.width))
    return dict(np.load(folder / "expected.npz")), {name: value.numpy() for name, value in got.items()}


@pytest.mark.parametrize(
    "name",
    [
        "sam_view",
        "resize_shape",
        "beit_view",
        "image_embedding",
        "dense_pe",
        "beit3_cls",
        "projected_prompt",
        "low_res_logits",
        "iou_predictions",
        "full_res_logits",
    ],
)
def test_array(outputs, name):
    expected, got = outputs
    assert got[name].shape == expected[name].shape
    tolerance = 1e-6 if name.endswith("view") else 1e-5 * max(1, np.abs(expected[name]).max())
    assert np.abs(got[name] - expected[name]).max() <= tolerance


def test_mask(outputs):
    expected, got = outputs
    sure = np.abs(expected["full_res_logits"]) >= 1e-4
    assert ((got["full_res_logits"] > 0) == expected["mask"])[sure].all()


@pytest.mark.parametrize("stem", ["img_640x427", "img_300x400", "img_57x91", "img_1600x90"])
def test_preprocessing(golden, stem):
    expected = np.load(golden / "preprocess" / f"{stem}.npz")
    image = Image.open(golden / "preprocess" / f"{stem}.png")
    view, inner = sam_view(image, 1024)
    sam, beit = view.numpy(), beit_view(image, 224).numpy()
    assert (image.height, image.width) == tuple(expected["original_shape"])
    assert inner == tuple(expected["resize_shape"])
    assert sam.shape == tuple(expected["sam_view_shape"])
    y, x = expected["sam_corner_br_origin"]
    wide = sam.astype(np.float64)
    for name, got in {
        "beit_view": beit,
        "sam_grid8": sam[:, ::8, ::8],
        "sam_corner_tl": sam[:, :64, :64],
        "sam_corner_br": sam[:, y : y + 64, x : x + 64],
        "sam_row_mean": wide.mean(axis=2),
        "sam_col_mean": wide.mean(axis=1),
        "sam_mean": wide.mean(axis=(1, 2)),
        "sam_std": wide.std(axis=(1, 2)),
        "beit_mean": beit.astype(np.float64).mean(axis=(1, 2)),
    }.items():
        np.testing.assert_allclose(got, expected[name], rtol=0, atol=1e-5, err_msg=name)
