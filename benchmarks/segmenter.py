"""Pictures per second of the segmenter against a loop that follows upstream's inference, with the same outputs.

The loop decodes one expression at a time and encodes the picture for each, as the official script does. Weights are
random, or those of a folder; what is measured does not depend on them.

    python benchmarks/segmenter.py --size tiny
    python benchmarks/segmenter.py --size base --images 1 --repeats 1
    python benchmarks/segmenter.py --size huge --device cuda --dtype bfloat16 --no-loop --height 480 --expressions 4
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from PIL import Image

from saliency_r1.segmenter import EvfSamSegmenter, Segment, load
from saliency_r1.segmenter.beit3 import Beit3Config
from saliency_r1.segmenter.evf_sam import EvfSam, EvfSamConfig, ImageEncoderConfig, MaskDecoderConfig
from saliency_r1.segmenter.preprocess import beit_view, full_size, sam_view
from saliency_r1.segmenter.tokenizer import Tokenizer

COLOURS, THINGS = ("red", "green", "blue", "dark", "bright"), ("apple", "dog", "cup", "roof")
PHRASES = [f"the {colour} {thing} on the left" for thing in THINGS for colour in COLOURS]
SIZES = {
    "tiny": EvfSamConfig(  # that of embedded/models/segmenter
        Beit3Config(96, 16, 640, 96, 4, 288, 3, 98),
        ImageEncoderConfig(128, 8, 128, 4, 4, 3.0, 8, (1, 3), 96, True),
        MaskDecoderConfig(96, 2, 4, 256, 3, 3, 96),
        projector_hidden=96,
    ),
    "base": EvfSamConfig(
        Beit3Config(embed_dim=768, num_heads=12, ffn_dim=3072, num_layers=12, vocab_size=512),
        ImageEncoderConfig(embed_dim=768, depth=12, num_heads=12, global_attn_indexes=(2, 5, 8, 11)),
        projector_hidden=768,
    ),
    "huge": EvfSamConfig(),
}


def random_segmenter(size: str, device: str, dtype: torch.dtype, **batches: int) -> EvfSamSegmenter:
    """A segmenter of the given size on seeded random weights, with a vocabulary of the benchmark's own phrases."""
    torch.manual_seed(0)
    with torch.device(device):
        model = EvfSam(SIZES[size])
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(PHRASES * 5),
            model_prefix=f"{folder}/pieces",
            model_type="bpe",
            vocab_size=100,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            minloglevel=2,
        )
        tokenizer = Tokenizer(Path(f"{folder}/pieces.model"), SIZES[size].beit3.max_text_tokens)
    return EvfSamSegmenter(model, tokenizer, dtype, **batches)


@torch.inference_mode()
def upstream_loop(segmenter: EvfSamSegmenter, images: list[Image.Image], phrases: list[str]) -> list[list[Segment]]:
    """One expression at a time, both encoders each time."""
    model, config = segmenter.model, segmenter.model.config
    side = config.sam_image_encoder.img_size
    answers: list[list[Segment]] = []
    for image in images:
        answers.append([])
        for phrase in phrases:
            view, inner = sam_view(image, side)
            ids = torch.tensor([segmenter.tokenizer.encode(phrase)], device=segmenter.device)
            other = beit_view(image, config.beit3.img_size)[None].to(segmenter.device)
            enabled = segmenter.dtype != torch.float32
            with torch.autocast(segmenter.device.type, segmenter.dtype, enabled=enabled):
                features = model.embed_images(view[None].to(segmenter.device))
                prompt = model.embed_prompts(other, ids, torch.zeros_like(ids, dtype=torch.bool))
            low, score = model.decode(features, prompt)
            logits = full_size(low, side, inner, (image.height, image.width))[0].cpu().numpy()
            answers[-1].append(Segment(logits, float(score.clamp(0, 1))))
    return answers


def ours(segmenter: EvfSamSegmenter, images: list[Image.Image], phrases: list[str]) -> list[list[Segment]]:
    """Pictures once, expressions in batches."""
    return segmenter.segment(segmenter.encode(images), [phrases] * len(images))


def seconds(run: Callable[[], list[list[Segment]]], repeats: int) -> tuple[float, list[list[Segment]]]:
    """Best time of several runs and the answer."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        answer = run()
        times.append(time.perf_counter() - started)
    return min(times), answer


def rates(segmenter: EvfSamSegmenter, images: list[Image.Image], phrases: list[str], repeats: int) -> dict[str, float]:
    """Pictures encoded a second, and expressions segmented a second in pictures that are encoded; the fastest runs."""
    encoding, segmenting = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        encoded = segmenter.encode(images)
        if segmenter.device.type == "cuda":
            torch.cuda.synchronize()
        between = time.perf_counter()
        segmenter.segment(encoded, [phrases] * len(images))
        encoding.append(between - started)
        segmenting.append(time.perf_counter() - between)
    return {
        "encoded_images_per_second": round(len(images) / min(encoding), 3),
        "expressions_per_second": round(len(images) * len(phrases) / min(segmenting), 3),
    }


def difference(left: list[list[Segment]], right: list[list[Segment]]) -> float:
    """Largest absolute difference of logits, relative to the largest logit (at least 1)."""
    pairs = [(a.logits, b.logits) for x, y in zip(left, right) for a, b in zip(x, y)]
    return max(float(np.abs(a - b).max() / max(1, np.abs(a).max())) for a, b in pairs)


def peak_memory(device: torch.device) -> int:
    """Bytes: of the accelerator since the last reset, else of the process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a number of expressions."""
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    batches = {"batch_images": options.batch_images, "batch_phrases": options.batch_phrases}
    if options.folder:
        segmenter = load(options.folder, options.device, dtype, **batches)
    else:
        segmenter = random_segmenter(options.size, options.device, dtype, **batches)
    rng = np.random.default_rng(0)
    shape = (options.height, options.height * 4 // 3, 3)
    images = [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(options.images)]
    ours(segmenter, images[: options.batch_images], PHRASES[:1])
    for count in options.expressions:
        phrases = PHRASES[:count]
        fast, answer = seconds(lambda phrases=phrases: ours(segmenter, images, phrases), options.repeats)  # type: ignore[misc]
        row = {
            "size": str(options.folder or options.size),
            "device": options.device,
            "dtype": options.dtype,
            "parameters": sum(parameter.numel() for parameter in segmenter.model.parameters()),
            "expressions": count,
            "images_per_second": round(len(images) / fast, 3),
            **rates(segmenter, images, phrases, options.repeats),
            "peak_bytes": peak_memory(segmenter.device),
        }
        if not options.no_loop:
            slow, expected = seconds(lambda phrases=phrases: upstream_loop(segmenter, images, phrases), options.repeats)  # type: ignore[misc]
            row |= {
                "loop_images_per_second": round(len(images) / slow, 3),
                "faster": round(slow / fast, 2),
                "difference": difference(answer, expected),
            }
        yield row


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, or the words of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--folder", type=Path, help="measure these weights instead of random ones")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--height", type=int, default=96, help="of an image, in pixels; it is 4 to 3")
    parser.add_argument("--batch-images", type=int, default=16)
    parser.add_argument("--batch-phrases", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--expressions", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-loop", action="store_true", help="leave the loop out")
    return parser.parse_args(words)


def main() -> None:
    """Measure and print one JSON line a number of expressions."""
    for row in measure(options_of()):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
