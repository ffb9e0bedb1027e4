"""The measures for batches of tensors, on whatever device they are: for rewards where maps never leave an accelerator.

Every image becomes one table of pixel counts (quadrant x class x level) by a single `bincount`; the rest is
arithmetic on those tables, in float64. The weighted F-measure needs a distance transform and is left to `saliency`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saliency_r1.metrics.saliency import sums_exactly
from saliency_r1.metrics.truth import EPS, MeasureError


def scores(pred: Tensor, gt: Tensor, stretch: bool = True, beta2: float = 0.3) -> dict[str, Tensor]:
    """Sm, MAE, max/mean/adaptive Fm and Em, IoU and Dice of each image: float64 tensors of length N, values in [0, 1].

    E of P pixels lies in [0, P / (P - 1)], as in `saliency.Curves`.

    `pred`: N x H x W, bool, uint8 in [0, 255] or floating in [0, 1] (rounded as by `to_levels`); `gt`: N x H x
    W or H x W for all, bool. Equal to `Pair` to 1e-6. Raises MeasureError for shapes that differ and for values
    outside of these.
    """
    levels, counts, values, corners = _tables(pred, gt, stretch)
    by_class = counts.sum(1)  # N x 2 x 256
    size = by_class.sum((1, 2))
    foreground = by_class[:, 1].sum(1)
    mean = (by_class.sum(1) * values).sum(1) / size
    error = (by_class[:, 0] * values + by_class[:, 1] * (1 - values)).sum(1) / size

    adaptive = _adaptive(levels, values, mean)
    above_adaptive = (values >= adaptive[:, None]).double()
    false, true = ((by_class * above_adaptive[:, None]).sum(2)).unbind(1)
    f, e = _f_and_e(true[:, None], false[:, None], foreground[:, None], size[:, None], beta2)
    bins = (values * 255).long()
    histogram = torch.zeros_like(by_class).scatter_add_(2, bins[:, None].expand_as(by_class).contiguous(), by_class)
    above = histogram.flip(2).cumsum(2).flip(2)
    f_curve, e_curve = _f_and_e(above[:, 1], above[:, 0], foreground[:, None], size[:, None], beta2)

    selected = (by_class * (values > 0.5)[:, None]).sum(2)
    union = selected[:, 0] + foreground
    iou = selected[:, 1] / union.clamp(min=1)
    return {
        "Sm": _s_measure(counts, values, mean, corners, (pred.shape[1], pred.shape[2])),
        "MAE": error,
        "maxFm": f_curve.amax(1),
        "meanFm": f_curve.mean(1),
        "adpFm": f[:, 0],
        "maxEm": e_curve.amax(1),
        "meanEm": e_curve.mean(1),
        "adpEm": e[:, 0],
        "IoU": iou,
        "Dice": 2 * selected[:, 1] / (union + selected[:, 1]).clamp(min=1),
    }


def sm_and_iou(pred: Tensor, gt: Tensor, stretch: bool = True) -> tuple[Tensor, Tensor]:
    """Structure measure and intersection over union of each image; arguments and errors as in `scores`."""
    both = scores(pred, gt, stretch)
    return both["Sm"], both["IoU"]


def _adaptive(levels: Tensor, values: Tensor, mean: Tensor) -> Tensor:
    """The adaptive threshold of each image, N: twice the mean of its map, at most 1."""
    adaptive = 2 * mean
    # A level lies on the threshold: only the mean as `Pair` sums it tells on which side.
    for image in ((values - adaptive[:, None]).abs() < 1e-12).any(1).nonzero().flatten().tolist():
        adaptive[image] = 2 * float(values[image].cpu().numpy()[levels[image].cpu().numpy()].mean())
    return adaptive.clamp(max=1)


def _tables(pred: Tensor, gt: Tensor, stretch: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The levels, N x H x W; pixel counts, N x 4 quadrants x (background, foreground) x 256 levels; what each level
    means, N x 256; and the row and column where the quadrants meet, N x 2.
    """
    if pred.ndim != 3 or gt.shape[-2:] != pred.shape[-2:] or gt.dtype != torch.bool or not pred.numel():
        raise MeasureError(f"expected N x H x W maps and bool masks, got {tuple(pred.shape)} and {tuple(gt.shape)}")
    if pred.is_floating_point():
        if not bool(((pred >= 0) & (pred <= 1)).all()):
            raise MeasureError("a float saliency map lies in [0, 1]")
        if pred.dtype == torch.bfloat16:  # its 8 bits do not hold 254.5
            pred = pred.float()
        levels = (pred * 255 - 0.5).ceil().long()
    else:
        levels = pred.long() * (255 if pred.dtype == torch.bool else 1)
        # A level beyond would be counted for the next image.
        if pred.dtype not in (torch.bool, torch.uint8) and not bool(((levels >= 0) & (levels <= 255)).all()):
            raise MeasureError("a saliency map of whole numbers lies in [0, 255]")
    images, height, width = levels.shape
    gt = gt.expand(images, height, width)

    rows = torch.arange(height, device=gt.device)[None]
    columns = torch.arange(width, device=gt.device)[None]
    foreground = gt.sum((1, 2)).clamp(min=1)
    # Without float64 a device rounds large sums, so the means are taken from integers on the host if need be.
    double = torch.float32 if gt.device.type == "mps" else torch.float64
    row = ((gt.sum(2) * rows).sum(1).to(double) / foreground).round().long() + 1
    column = ((gt.sum(1) * columns).sum(1).to(double) / foreground).round().long() + 1
    quadrant = 2 * (rows >= row[:, None]).long()[:, :, None] + (columns >= column[:, None]).long()[:, None, :]
    image = torch.arange(images, device=gt.device)[:, None, None]
    cells = ((image * 4 + quadrant) * 2 + gt.long()) * 256 + levels
    counts = torch.bincount(cells.flatten(), minlength=images * 2048).view(images, 4, 2, 256)

    low, high = levels.amin((1, 2)), levels.amax((1, 2))
    whole = torch.full_like(low, 255)
    stretched = (low < high) & stretch
    low, high = torch.where(stretched, low, torch.zeros_like(low)), torch.where(stretched, high, whole)
    corners = torch.stack([row, column], 1)
    if counts.device.type == "mps":
        counts, low, high, corners = counts.cpu(), low.cpu(), high.cpu(), corners.cpu()
    # The same operations in the same order as in `Pair`, so that truncated values agree to the bit.
    values = torch.arange(256, device=counts.device, dtype=torch.float64) / 255
    low, high = low.double() / 255, high.double() / 255
    return levels, counts.double(), ((values - low[:, None]) / (high - low)[:, None]).clamp(0, 1), corners


def _s_measure(counts: Tensor, values: Tensor, mean: Tensor, corners: Tensor, shape: tuple[int, int]) -> Tensor:
    n = counts.sum(3)  # N x 4 x 2
    means = (counts * values[:, None, None]).sum(3) / n.clamp(min=1)
    scatter = (counts * (values[:, None, None] - means[..., None]) ** 2).sum(3)
    size = n.sum((1, 2))

    pixels = n.sum(1)  # N x 2
    classes = (n * means).sum(1) / pixels.clamp(min=1)
    spread = (scatter + n * (means - classes[:, None]) ** 2).sum(1)
    deviation = (spread / (pixels - 1).clamp(min=1)).sqrt()
    x = torch.stack([1 - classes[:, 0], classes[:, 1]], 1)
    objects = (2 * x / (x**2 + 1 + deviation + EPS) * pixels).sum(1) / size

    area = n.sum(2)  # N x 4
    whole = area.clamp(min=1)
    x, y = (n * means).sum(2) / whole, n[..., 1] / whole
    degrees = (area - 1).clamp(min=EPS)
    var_x = (scatter + n * (means - x[..., None]) ** 2).sum(2) / degrees
    var_y, cov = n[..., 1] * (1 - y) / degrees, n[..., 1] * (means[..., 1] - x) / degrees
    ssim = 4 * x * y * cov / ((x**2 + y**2) * (var_x + var_y) + EPS)
    flat = ((n == 0) & (n.sum(2, keepdim=True) > 0)).any(2)
    level = counts.sum(2).argmax(2)
    value = values.gather(1, level)
    uniform = counts.sum(2).amax(2) == area
    ssim = torch.where(flat, uniform.double(), ssim)
    for image, k in (flat & uniform & (value > 0) & (value < 1)).nonzero().tolist():
        row, column = corners[image].tolist()
        rows = slice(0, row) if k < 2 else slice(row, None)
        columns = slice(0, column) if k % 2 == 0 else slice(column, None)
        ssim[image, k] = float(sums_exactly(float(value[image, k]), shape, (rows, columns)))
    regions = (ssim * area).sum(1) / size

    foreground = pixels[:, 1]
    score = (0.5 * objects + 0.5 * regions).clamp(min=0)
    return torch.where(foreground == 0, 1 - mean, torch.where(foreground == size, mean, score))


def _f_and_e(true: Tensor, false: Tensor, foreground: Tensor, size: Tensor, beta2: float) -> tuple[Tensor, Tensor]:
    """F and E, N x thresholds, of binary maps with so many true and false positives."""
    selected = true + false
    precision, recall = true / selected.clamp(min=1), true / foreground.clamp(min=1)
    f = (1 + beta2) * precision * recall / (beta2 * precision + recall).clamp(min=EPS)

    missed = foreground - true
    mean, gt_mean = selected / size, foreground / size
    total = torch.zeros_like(selected)
    for pixels, a, b in (
        (true, 1 - mean, 1 - gt_mean),
        (false, 1 - mean, -gt_mean),
        (missed, -mean, 1 - gt_mean),
        (size - selected - missed, -mean, -gt_mean),
    ):
        total = total + (2 * a * b / (a**2 + b**2 + EPS) + 1) ** 2 / 4 * pixels
    total = torch.where(foreground == 0, size - selected, torch.where(foreground == size, selected, total))
    return f, total / (size - 1).clamp(min=1)
