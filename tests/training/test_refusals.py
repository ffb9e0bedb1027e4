"""What the trainers refuse, and what ends them: each by name, and before work is lost on it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from handful import CGPO, LORA, SFT, WEIGHTS, fresh, isr, run_cgpo, weights
from rendered import EMBEDDED
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from saliency_r1.data.errors import DataError
from saliency_r1.policy import Policy, PolicyError
from saliency_r1.runtime import processes
from saliency_r1.training import cgpo, checkpoints, sft
from saliency_r1.training.errors import TrainingError
from saliency_r1.training.optimiser import Optimiser, check_finite, save_adapter, wrap

NAN = float("nan")


def test_another_distribution_than_the_sampled_one_ends_the_run(environment, examples, tmp_path, monkeypatch):
    honest = Policy.logits
    monkeypatch.setattr(Policy, "logits", lambda self, batch: honest(self, batch) * 3)
    with pytest.raises(TrainingError, match="differ by"):
        run_cgpo(environment, examples, tmp_path, stop=1)


def test_processes_that_find_different_checkpoints_end(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "gather", lambda items: [*items, 4])
    with pytest.raises(TrainingError, match=r"checkpoints of different steps in .*: 0, 4"):
        checkpoints.load(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is a device of Linux")
def test_a_checkpoint_that_has_no_room_is_named_and_leaves_the_one_before(tmp_path):
    state = {"weights": {"a": torch.zeros(100_000)}}
    checkpoints.save(tmp_path, 1, state)
    (tmp_path / "step-0000002.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*step-0000002\.pt"):
        checkpoints.save(tmp_path, 2, state)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000001.pt"]
    assert checkpoints.load(tmp_path)["step"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 7}, "larger than the 6 training samples"),
        ({"isr": isr(1, batch_size=7)}, "isr.batch_size = 7 is larger than the 6 annotations"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_update(examples, change, message):
    with pytest.raises(TrainingError, match=message):
        cgpo.check(CGPO.model_copy(update=change), examples.rows, len(examples))


def test_no_samples_is_an_error(examples):
    with pytest.raises(TrainingError, match="no training sample"):
        cgpo.check(CGPO, [], 0)


def test_samples_whose_images_are_gone_are_named_before_the_first_update(environment, examples, tmp_path):
    row = {**examples.rows[1], "images": ["gone.png"]}
    rows = [examples.rows[0], row, *examples.rows[2:]]
    with pytest.raises(DataError, match=rf"1 files .*{row['sample_id']} \(gone.png\)"):
        next(cgpo.train(fresh(), environment, rows, examples, CGPO, 0, tmp_path))
    with pytest.raises(DataError, match=row["sample_id"]):
        next(sft.train(fresh(), environment, sft.Examples(rows, examples.responses), SFT, 0, tmp_path))


def test_an_sft_batch_larger_than_the_data_is_named(environment, examples, tmp_path):
    with pytest.raises(TrainingError, match=r"sft\.batch_size = 7 is larger than the 6 annotations"):
        next(sft.train(fresh(), environment, examples, SFT.model_copy(update={"batch_size": 7}), 0, tmp_path))


@pytest.mark.parametrize("change", [{"hidden_size": 64, "intermediate_size": 64}, {"num_hidden_layers": 3}])
def test_an_adapter_of_another_base_is_named(change, tmp_path):
    save_adapter(fresh(), tmp_path / "adapter")
    shutil.copytree(EMBEDDED / "models/policy", tmp_path / "other")
    config = json.loads((tmp_path / "other/config.json").read_text())
    config["text_config"] |= change | {"layer_types": ["full_attention"] * change.get("num_hidden_layers", 4)}
    config["vision_config"]["out_hidden_size"] = config["text_config"]["hidden_size"]
    Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config)).save_pretrained(tmp_path / "other")
    with pytest.raises(PolicyError, match=r"adapter is not an adapter of .*other"):
        Policy.load(tmp_path / "other", tmp_path / "adapter")


def test_a_gradient_that_is_not_finite_is_skipped_and_three_in_a_row_stop_the_run(environment, examples, tmp_path):
    policy = fresh()
    before = weights(policy)
    poisoned = replace(
        environment, weights={**WEIGHTS, **{k: dict.fromkeys(v, float("nan")) for k, v in WEIGHTS.items()}}
    )
    with pytest.raises(TrainingError, match="three steps in a row"):
        list(
            cgpo.train(
                policy,
                poisoned,
                examples.rows,
                examples,
                CGPO.model_copy(update={"isr": isr(0)}),
                0,
                tmp_path,
            )
        )
    assert all(torch.equal(value, before[name]) for name, value in weights(policy).items())


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_forward_pass_that_is_not_finite_stops_the_run_after_three(
    environment, examples, tmp_path, monkeypatch, epochs
):
    honest = Policy.logits
    monkeypatch.setattr(Policy, "logits", lambda self, batch: honest(self, batch) * float("nan"))
    options = CGPO.model_copy(update={"isr": isr(0), "epochs": epochs})
    with pytest.raises(TrainingError, match="three steps in a row"):
        run_cgpo(environment, examples, tmp_path, options=options)


@pytest.mark.parametrize("norms", [[NAN, NAN], [NAN, NAN, 1.0], [1.0, NAN, NAN], [NAN, 1.0, NAN, NAN]])
def test_a_gradient_now_and_then_that_is_not_finite_stops_nothing(norms):
    check_finite(norms, [])
    with pytest.raises(TrainingError, match=r"the last one saw a, b\."):
        check_finite([*norms, NAN, NAN, NAN], ["a", "b"])


def test_isr_steps_that_are_not_finite_stop_the_run_after_three(environment, examples, tmp_path):
    options = CGPO.model_copy(update={"isr": isr(1, weight=1e38)})
    with pytest.raises(TrainingError, match="three steps in a row"):
        run_cgpo(environment, examples, tmp_path, options=options)


def test_weights_that_small_steps_are_lost_on_are_not_trained():
    base = Policy.load(EMBEDDED / "models/policy", dtype=torch.bfloat16)
    Optimiser(wrap(base, LORA, seed=1), SFT, 4)  # PEFT keeps LoRA in float32
    for lora in (None, LORA.model_copy(update={"modules_to_save": ("embed_tokens",)})):
        base = Policy.load(EMBEDDED / "models/policy", dtype=torch.bfloat16)
        with pytest.raises(TrainingError, match="bfloat16 would be trained"):
            Optimiser(wrap(base, lora, seed=1), SFT, 4)


def test_nothing_but_the_language_model_is_adapted():
    base = Policy.load(EMBEDDED / "models/policy")
    assert any("visual" in name and name.endswith("gate_proj") for name, _ in base.model.named_modules())
    both = wrap(base, LORA.model_copy(update={"targets": r".*\.(gate_proj|up_proj)$"}), 0)
    trained = [name for name, weight in both.model.named_parameters() if weight.requires_grad]
    assert len(trained) == 2 * 2 * 4
    assert all("language_model" in name for name in trained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": r".*visual.*\.(gate_proj|up_proj)$"}, r"matches no module of the language.*k_proj, o_proj"),
        ({"modules_to_save": ("merger",)}, r"trains .*visual\.merger.*, which is not of the language model"),
    ],
)
def test_what_would_train_something_else_is_refused(change, message):
    with pytest.raises(TrainingError, match=message):
        wrap(Policy.load(EMBEDDED / "models/policy"), LORA.model_copy(update=change), 0)
