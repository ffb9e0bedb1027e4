"""An update at the paper's size: CGPO and GRPO with 8 generations on a Qwen2.5-VL of true shape and random weights.

    python benchmarks/paper_size.py                                # 3B, bfloat16, LoRA, as profiles/paper-3b.yaml says
    python benchmarks/paper_size.py --size 7b --prompts 16
    python benchmarks/paper_size.py --layers 2 --prompts 2 --tokens 8 --pixels 12544 --updates 2     # on a CPU

Shapes decide time and memory, weights do not, but for one thing: a policy of random weights never ends its answer, so
every response has `--tokens` tokens, none parses, and the segmenter has nothing to do. Pictures are noise with a bright
square, of `--pixels` pixels; nothing but this checkout is needed. All answers of an update are generated at once. The
first update of each is left out of the means. Memory is that of the accelerator, or of the process where there is none.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rl_step import measured

from saliency_r1.runtime.files import write_json

ROOT = Path(__file__).parents[1]
EMBEDDED = ROOT / "embedded"
GENERATIONS = 8
SIZES = {"3b": "Qwen/Qwen2.5-VL-3B-Instruct", "7b": "Qwen/Qwen2.5-VL-7B-Instruct"}
SAID = "<think>One thing stands out: a bright square on noise.</think><answer><rg>the bright square</rg></answer>"


def build(size: str, layers: int | None, pixels: int, device: Any, dtype: Any, checkpointing: bool = False) -> Any:
    """A policy of the size's shape; tokens and their ids are those of the embedded policy."""
    import torch
    from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from saliency_r1.plan.shapes import read_config
    from saliency_r1.policy import Policy
    from saliency_r1.policy.network import checkpoint_layers, freeze_vision

    folder = EMBEDDED / "models/policy"
    known = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    published = read_config(SIZES[size], [])
    text = known["text_config"] | published["text_config"] | {"max_position_embeddings": 32768}
    vision = known["vision_config"] | published["vision_config"]
    if layers:
        text["num_hidden_layers"], vision["depth"] = layers, layers
    text["layer_types"] = ["full_attention"] * text["num_hidden_layers"]
    known |= {"text_config": text, "vision_config": vision, "tie_word_embeddings": text["tie_word_embeddings"]}
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor.patch_size = vision["patch_size"]
    processor.image_processor.size = {"shortest_edge": pixels, "longest_edge": pixels}
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**known))
    torch.set_default_dtype(torch.float32)
    if checkpointing:
        checkpoint_layers(model)
    freeze_vision(model)
    return Policy(model.eval(), processor, device)


def picture(number: int, pixels: int) -> tuple[Image.Image, Image.Image]:
    """Noise with a bright square, 4 to 3, of about `pixels` pixels, and the mask of the square."""
    height, width = round((pixels * 3 / 4) ** 0.5), round((pixels * 4 / 3) ** 0.5)
    noise = np.random.default_rng(number).integers(0, 160, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 255
    noise[mask > 0] += 95
    return Image.fromarray(noise), Image.fromarray(mask)


def samples(folder: Path, count: int, pixels: int) -> list[dict[str, Any]]:
    """So many samples of salient object detection, written to a folder; rows as the sample table has them."""
    rows = []
    for number in range(count):
        image, mask = picture(number, pixels)
        image.save(folder / f"{number}.png")
        mask.save(folder / f"{number}-mask.png")
        rows.append(
            {"sample_id": str(number), "task": "sod", "dataset": "noise", "split": "train",
             "images": [f"{number}.png"], "masks": [f"{number}-mask.png"]}
        )  # fmt: skip
    return rows


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Updates of one algorithm: seconds, tokens, memory."""
    import torch

    from saliency_r1.params import load_params
    from saliency_r1.rollout.environment import Environment
    from saliency_r1.runtime.stage import prepare_torch
    from saliency_r1.training import sft
    from saliency_r1.training.optimiser import wrap

    params = load_params(ROOT / f"profiles/paper-{arguments.size}.yaml")
    runtime = params.runtime.model_copy(update={"device": "auto"})
    device, dtype = prepare_torch(runtime, params.seed)
    checkpointing = params.policy.gradient_checkpointing
    policy = build(arguments.size, arguments.layers, arguments.pixels, device, dtype, checkpointing)
    policy = wrap(policy, params.sft.lora, params.seed)
    environment = Environment.load(params, EMBEDDED, device, torch.float32)
    generations = GENERATIONS if arguments.algorithm == "grpo" else 1
    responses = arguments.prompts * generations
    environment.max_new_tokens, environment.batch_size = arguments.tokens, responses
    options = params.cgpo.model_copy(
        update={"algorithm": arguments.algorithm, "updates": arguments.updates, "group_size": generations,
                "batch_size": responses, "micro_batch": arguments.micro_batch, "drift_every": 0,
                "checkpoint_every": 10**6}
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        environment.folder = Path(folder)
        rows = samples(environment.folder, max(arguments.prompts, options.isr.batch_size), arguments.pixels)
        examples = sft.Examples(rows, [SAID] * len(rows))
        found = measured(policy, environment, rows, examples, options, Path(folder) / "runs")
    return found | {
        "parameters": sum(parameter.numel() for parameter in policy.model.parameters()),
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, or the words of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="3b")
    parser.add_argument("--layers", type=int, help="of text and vision, instead of all")
    parser.add_argument("--prompts", type=int, default=32, help="of an update; GRPO answers each of them 8 times")
    parser.add_argument("--tokens", type=int, default=256, help="of a response")
    parser.add_argument("--pixels", type=int, default=200704, help="of an image: 784 make a token")
    parser.add_argument("--micro-batch", type=int, default=4, help="responses whose graph is held at once")
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--algorithm", choices=("cgpo", "grpo"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/paper-size.json"))
    return parser.parse_args(words)


def main() -> None:
    """Measure both algorithms, each in a process of its own."""
    arguments = options_of()
    if arguments.algorithm:
        print(json.dumps(measure(arguments)))
        return
    found = {}
    for algorithm in ("cgpo", "grpo"):
        command = [sys.executable, *sys.argv, "--algorithm", algorithm]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[algorithm] = json.loads(done.stdout.splitlines()[-1])
    first = found["cgpo"]
    print(f"{first['parameters'] / 1e9:.2f} billion parameters, {first['hardware']}\n")
    print("| | s an update | of them generating | tokens | tokens/s | peak GB |\n|---|---:|---:|---:|---:|---:|")
    for algorithm, row in found.items():
        print(f"| {algorithm} | {row['seconds']:.2f} | {row['generate'] / row['seconds']:.0%} | {row['tokens']:.0f} | "
              f"{row['tokens_per_second']:.0f} | {row['peak_gb']:.1f} |")  # fmt: skip
    settings = {key: value for key, value in vars(arguments).items() if key not in ("algorithm", "out")}
    write_json(arguments.out, settings | found)


if __name__ == "__main__":
    main()
