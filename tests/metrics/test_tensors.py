import numpy as np
import pytest

from saliency_r1.metrics import MeasureError, Pair, Protocol

from .maps import KINDS, make, truth

torch = pytest.importorskip("torch")
from saliency_r1.metrics import tensors  # noqa: E402


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("gt_kind", KINDS)
def test_equals_the_evaluation(device, gt_kind):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    rng = np.random.default_rng(0)
    preds = np.stack([make(kind, rng, 30, 40) for kind in KINDS])
    gts = np.stack([truth(gt_kind, rng, 30, 40) > 128 for _ in KINDS])
    scores = tensors.scores(torch.from_numpy(preds).to(device), torch.from_numpy(gts).to(device))
    for k, (pred, gt) in enumerate(zip(preds, gts)):
        for key, value in Pair(pred, gt).scores(weighted=False).items():
            assert float(scores[key][k]) == pytest.approx(value, abs=1e-6), (KINDS[k], key)


def test_types_and_shapes():
    rng = np.random.default_rng(1)
    pred, gt = make("noise", rng, 12, 15), truth("binary", rng, 12, 15) > 128
    expected = Pair(pred, gt).s_measure, Pair(pred, gt).overlap[0]
    shared = torch.from_numpy(gt)
    for tensor in (torch.from_numpy(pred), torch.from_numpy(pred) / 255):
        sm, iou = tensors.sm_and_iou(tensor[None].expand(3, -1, -1), shared)
        assert sm.tolist() == pytest.approx([expected[0]] * 3, abs=1e-6)
        assert iou.tolist() == pytest.approx([expected[1]] * 3, abs=1e-6)
    assert float(tensors.sm_and_iou(shared[None], shared)[1]) == 1
    for wrong in (torch.zeros(2, 3), torch.zeros(1, 12, 14), torch.full((1, 12, 15), 1.5)):
        with pytest.raises(MeasureError):
            tensors.scores(wrong, shared)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64])
def test_a_perfect_map_is_perfect_in_every_type(dtype):
    gt = torch.zeros(1, 8, 8, dtype=torch.bool)
    gt[:, :4] = True
    pred = (gt * (1 if dtype.is_floating_point else 255)).to(dtype)
    scores = tensors.scores(pred, gt, stretch=False)
    assert float(scores["MAE"]) == 0
    assert float(scores["IoU"]) == 1


@pytest.mark.parametrize("value", [-1, 256, 300])
def test_whole_numbers_beyond_a_level_are_refused(value):
    gt = torch.ones(2, 8, 8, dtype=torch.bool)
    with pytest.raises(MeasureError, match="255"):
        tensors.scores(torch.full((2, 8, 8), value), gt)


@pytest.mark.parametrize("stretch", [True, False])
def test_a_level_on_the_adaptive_threshold_is_on_the_side_of_the_evaluation(stretch):
    """Twice the mean of a ramp is the sum of its ends, which is a level."""
    rng = np.random.default_rng(2)
    for height, width in ((48, 6), (37, 15), (52, 27), (6, 46), (4, 26)):
        pred = np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)
        gt = rng.random((height, width)) < 0.3
        expected = Pair(pred, gt, Protocol(stretch=stretch)).scores(weighted=False)
        scores = tensors.scores(torch.from_numpy(pred)[None], torch.from_numpy(gt), stretch=stretch)
        assert {key: float(value[0]) for key, value in scores.items()} == pytest.approx(expected, abs=1e-6)
