"""SFT and CGPO on a handful of samples: what changes, what does not, and that a killed run goes on exactly."""

from itertools import product

import pytest
import torch
from columns import assert_columns
from handful import CGPO, LORA, SFT, fresh, isr, moved, run_cgpo, run_sft, weights
from rendered import EMBEDDED

from saliency_r1.params import load_params, parse_params
from saliency_r1.policy import Policy
from saliency_r1.training import cgpo, checkpoints, sft
from saliency_r1.training.history import History
from saliency_r1.training.optimiser import Optimiser, save_adapter, wrap
from saliency_r1.yaml_loader import load_yaml


def test_sft_changes_the_adapter_and_nothing_else(environment, examples, tmp_path):
    policy = fresh()
    before = weights(policy)
    curves = list(sft.train(policy, environment, examples, SFT, 0, tmp_path))
    changed = {name for name, value in weights(policy).items() if not torch.equal(value, before[name])}
    trainable = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert changed == trainable
    assert all("lora" in name and "visual" not in name for name in changed)
    first, *_, last = (curve["loss"] for curve in curves)
    assert last < first - 0.5


def test_the_gradient_does_not_depend_on_the_micro_batch(environment, examples):
    gradients = []
    for size in (1, 2, 6):
        policy = fresh()
        sft.backward(policy, environment, examples, size, 1.0)
        gradients.append(torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]))
    assert torch.allclose(gradients[0], gradients[2], atol=1e-6)
    assert torch.allclose(gradients[1], gradients[2], atol=1e-6)


def test_sft_resumes_to_the_very_same_weights(environment, examples, tmp_path):
    whole = run_sft(environment, examples, tmp_path / "whole")
    run_sft(environment, examples, tmp_path / "killed", stop=5)
    resumed = run_sft(environment, examples, tmp_path / "killed")
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_cgpo_resumes_to_the_very_same_weights_and_rollouts(environment, examples, tmp_path):
    whole, updates = run_cgpo(environment, examples, tmp_path / "whole")
    run_cgpo(environment, examples, tmp_path / "killed", stop=3)
    resumed, again = run_cgpo(environment, examples, tmp_path / "killed")
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert [update.rollouts for update in updates] == [update.rollouts for update in again]
    assert [update.curve for update in updates] == [update.curve for update in again]


def test_the_rollouts_have_the_columns_and_bounds_of_the_contract(environment, examples, tmp_path):
    _, updates = run_cgpo(environment, examples, tmp_path)
    rows = [row for update in updates for row in update.rollouts]
    assert_columns("cgpo", History(tmp_path).tables()[2].columns)
    assert [row["rollout_id"] for row in rows] == list(range(CGPO.updates * CGPO.batch_size))
    assert all(0 <= row["reward"] <= 1 and 0 < row["confidence"] <= 1 for row in rows)
    assert "isr_loss" in updates[1].curve
    assert "isr_loss" not in updates[0].curve
    assert all(row["sampling_gap"] < 1e-5 for row in rows)
    assert all(row["objects"] >= 1 and 0 <= row["empty_masks"] <= 1 for row in rows)


def test_an_update_tells_what_it_has_cost(environment, examples, tmp_path):
    _, updates = run_cgpo(environment, examples, tmp_path, stop=2)
    plain, regularised = (update.costs for update in updates)
    assert all(plain[name] > 0 for name in ("generate", "segment", "reward", "forward", "backward", "peak_gb"))
    assert regularised["isr"] > 10 * plain["isr"]


def test_the_rl_and_the_isr_gradient_are_compared_where_a_copy_of_the_weights_is_kept(environment, examples, tmp_path):
    _, blind = run_cgpo(environment, examples, tmp_path / "blind", stop=2)
    options = CGPO.model_copy(update={"drift_every": 10})
    _, updates = run_cgpo(environment, examples, tmp_path / "looking", stop=2, options=options)
    assert blind[1].curve["isr_cosine"] is None
    assert 0 < abs(updates[1].curve["isr_cosine"]) <= 1
    assert updates[1].curve["isr_grad_norm"] == blind[1].curve["isr_grad_norm"]


def test_the_cosine_of_two_gradients():
    policy = fresh()
    optimiser = Optimiser(policy, SFT, 4)
    first, second = optimiser.parameters[:2]
    cosines = []
    for a, b, remember in ((1.0, 0.0, True), (3.0, 4.0, True), (0.0, 0.0, True), (1.0, 1.0, False), (1.0, 1.0, False)):
        first.grad, second.grad = torch.zeros_like(first), torch.zeros_like(second)
        first.grad.view(-1)[0], second.grad.view(-1)[0] = a, b
        optimiser.step(remember)
        cosines.append(optimiser.cosine)
    assert cosines == [None, pytest.approx(0.6), None, None, None]


def test_steps_with_moments_of_their_own_do_not_shrink_the_others():
    """Adam's first step is lr whatever the gradient's size; behind a gradient 1000 times as large much less."""
    moved_by = {}
    for own in (True, False):
        optimiser = Optimiser(fresh(), SFT.model_copy(update={"warmup": 0, "adam_epsilon": 1e-12}), 100, own)
        first = optimiser.parameters[0]
        steps = []
        for size, regularising in ((1.0, True), (1e-3, False), (1e-3, False)):
            before = first.detach().clone()
            first.grad = torch.full_like(first, size / first.numel() ** 0.5)
            optimiser.step(regularising=regularising)
            steps.append((before - first.detach()).mean().item() / SFT.lr)
        moved_by[own] = steps
    assert moved_by[True] == pytest.approx([1, 1, 1], abs=1e-3)
    # By hand, with g = .001: m = .1 (.9 + g) / (1 - .81), v = .001 (.999 + g^2) / (1 - .999^2), and m / sqrt(v).
    assert moved_by[False][1] == pytest.approx(0.901 * 0.1 / 0.19 / (0.000999001 / 0.001999) ** 0.5, abs=1e-3)


def test_moments_of_their_own_change_the_run_and_resume_to_the_very_same_weights(environment, examples, tmp_path):
    options = CGPO.model_copy(update={"isr": isr(2, moments="own")})
    whole, updates = run_cgpo(environment, examples, tmp_path / "whole", options=options)
    for stop in (1, 3):  # before the first ISR step and behind it
        run_cgpo(environment, examples, tmp_path / str(stop), stop=stop, options=options)
        resumed, again = run_cgpo(environment, examples, tmp_path / str(stop), options=options)
        for name, value in weights(whole).items():
            assert torch.equal(value, weights(resumed)[name]), name
        assert [update.curve for update in updates] == [update.curve for update in again]
    shared, _ = run_cgpo(environment, examples, tmp_path / "shared")
    assert moved(whole, shared) > 0


def test_isr_steps_take_every_annotation_in_turn(environment, examples, tmp_path, monkeypatch):
    taken = []
    honest = sft.backward

    def backward(policy, environment, chosen, *rest):
        taken.extend(row["sample_id"] for row in chosen.rows)
        return honest(policy, environment, chosen, *rest)

    monkeypatch.setattr(sft, "backward", backward)
    run_cgpo(environment, examples, tmp_path, stop=3, options=CGPO.model_copy(update={"isr": isr(1)}))
    assert sorted(taken) == sorted(row["sample_id"] for row in examples.rows)


def test_no_two_responses_of_a_run_share_a_seed():
    assert len({cgpo.response_seed(*each) for each in product(range(3), range(4), range(5))}) == 60


def test_the_rate_rises_evenly_and_falls_to_a_tenth():
    optimiser = Optimiser(fresh(), SFT.model_copy(update={"lr": 1.0, "warmup": 2}), 10)
    rates = []
    for _ in range(11):
        rates.append(optimiser.lr)
        optimiser.advance()
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rates[2:] == pytest.approx([1 - 0.9 * step / 8 for step in range(9)])
    assert rates[-1] == pytest.approx(0.1)


def test_more_passes_over_the_same_rollouts_go_further(environment, examples, tmp_path):
    once, updates = run_cgpo(environment, examples, tmp_path / "once", stop=1)
    twice, again = run_cgpo(
        environment, examples, tmp_path / "twice", stop=1, options=CGPO.model_copy(update={"epochs": 2})
    )
    assert updates[0].rollouts == again[0].rollouts
    assert moved(once, twice) > 0


@pytest.mark.parametrize("size", [1, 3])
def test_responses_that_no_micro_batch_holds_are_passed_over_twice_to_the_same_end(
    environment, examples, tmp_path, size
):
    whole, updates = run_cgpo(environment, examples, tmp_path / "whole", stop=2)
    parts, again = run_cgpo(
        environment, examples, tmp_path / "parts", stop=2, options=CGPO.model_copy(update={"micro_batch": size})
    )
    assert moved(whole, parts) < 1e-4 * moved(whole, fresh())
    for one, other in zip(updates[1].rollouts, again[1].rollouts):
        assert one["response"] == other["response"]
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-5)


def test_no_more_than_a_micro_batch_of_graphs_waits_for_the_advantage(environment, examples, tmp_path, monkeypatch):
    waiting = []
    honest = cgpo.Trainer._measure

    def measure(self, batch):
        found = honest(self, batch)
        waiting.append(sum(len(one.positions) for one in found if one.logprobs.requires_grad))
        return found

    monkeypatch.setattr(cgpo.Trainer, "_measure", measure)
    for size in (1, 3, 4):
        options = CGPO.model_copy(update={"micro_batch": size})
        run_cgpo(environment, examples, tmp_path / str(size), stop=1, options=options)
    assert waiting == [0, 0, 4]


def test_confidence_is_measured_without_dropout_on_what_was_sampled(environment, examples, tmp_path):
    found = []
    for dropout in (0.0, 0.5):
        policy = fresh(LORA.model_copy(update={"dropout": dropout}))
        scramble(policy)
        options = CGPO.model_copy(update={"isr": isr(0)})
        updates = cgpo.train(policy, environment, examples.rows, examples, options, 0, tmp_path / str(dropout))
        found.append([next(updates).rollouts, next(updates).rollouts])
    assert found[0] == found[1]


def scramble(policy):
    """Give an adapter, which starts at zero, an effect for dropout to change."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.02)


def test_the_drift_from_the_sft_policy_is_looked_at_now_and_then(environment, examples, tmp_path):
    options = CGPO.model_copy(update={"drift_every": 2, "updates": 4, "lr": 1e-3})
    policy, updates = run_cgpo(environment, examples, tmp_path / "looking", options=options)
    assert [update.curve["kl_to_sft"] is None for update in updates] == [True, False, True, False]
    assert 0 < updates[1].curve["kl_to_sft"] < updates[3].curve["kl_to_sft"]
    blind = options.model_copy(update={"drift_every": 0})
    unseen, _ = run_cgpo(environment, examples, tmp_path / "blind", options=blind)
    assert moved(policy, unseen) == 0, "looking changes nothing"


def test_the_kl_holds_the_policy_back(environment, examples, tmp_path):
    """The reference is the policy that SFT left, also after a resumption."""
    plain = CGPO.model_copy(update={"isr": isr(0)})
    tied = plain.model_copy(update={"kl": 50.0})
    start = fresh()
    free, _ = run_cgpo(environment, examples, tmp_path / "free", options=plain)
    held, _ = run_cgpo(environment, examples, tmp_path / "held", options=tied)
    assert moved(start, held) < moved(start, free)
    run_cgpo(environment, examples, tmp_path / "killed", stop=3, options=tied)
    resumed, _ = run_cgpo(environment, examples, tmp_path / "killed", options=tied)
    assert moved(held, resumed) == 0


@pytest.mark.parametrize("algorithm", ["reinforce_pp", "rloo", "remax"])
def test_the_other_algorithms_run_and_resume(environment, examples, tmp_path, algorithm):
    options = CGPO.model_copy(update={"algorithm": algorithm, "group_size": 2 if algorithm == "rloo" else 1})
    whole, updates = run_cgpo(environment, examples, tmp_path / "whole", options=options)
    run_cgpo(environment, examples, tmp_path / "killed", stop=3, options=options)
    resumed, again = run_cgpo(environment, examples, tmp_path / "killed", options=options)
    assert moved(whole, resumed) == 0
    assert [update.rollouts for update in updates] == [update.rollouts for update in again]


def test_dropout_in_bfloat16_with_two_passes_resumes_exactly(environment, examples, tmp_path):
    options = CGPO.model_copy(update={"epochs": 2, "micro_batch": 1})

    def run(runs, stop=None):
        base = Policy.load(
            EMBEDDED / "models/policy", min_pixels=1024, max_pixels=25600, autocast=True, gradient_checkpointing=True
        )
        policy, updates = wrap(base, LORA.model_copy(update={"dropout": 0.3}), seed=1), []
        for update in cgpo.train(policy, environment, examples.rows, examples, options, 0, runs):
            updates.append(update)
            if len(updates) == stop:
                break
        return policy, updates

    whole, updates = run(tmp_path / "whole")
    run(tmp_path / "killed", stop=3)
    resumed, again = run(tmp_path / "killed")
    assert moved(whole, resumed) == 0
    assert [update.rollouts for update in updates] == [update.rollouts for update in again]
    assert all(1e-5 < update.curve["sampling_gap"] < 0.02 for update in updates), "bfloat16 rounds, and no more"


def test_the_average_of_the_weights_is_what_is_kept():
    policy = fresh()
    options = SFT.model_copy(update={"average": 0.75})
    optimiser = Optimiser(policy, options, 4)
    (first, *_) = optimiser.parameters
    seen = []
    for value in (1.0, 2.0, 3.0):
        with torch.no_grad():
            first.fill_(value)
        optimiser.advance()
        seen.append(optimiser.average[0].flatten()[0].item())
    # The past weighs 1/10, 2/11 and 3/12: the start is soon forgotten.
    assert seen[1] == pytest.approx(seen[0] * 2 / 11 + 2 * 9 / 11)
    assert seen[2] == pytest.approx(seen[1] * 3 / 12 + 3 * 9 / 12)
    optimiser.settle()
    assert first.flatten()[0].item() == pytest.approx(seen[2])
    last = Optimiser(policy, SFT.model_copy(update={"average": 0.0}), 4)
    last.advance()
    last.settle()
    assert first.flatten()[0].item() == pytest.approx(seen[2]), "without an average the last weights stay"


def test_gradient_checkpointing_changes_no_gradient(environment, examples):
    found = []
    for checkpointing in (False, True):
        base = Policy.load(
            EMBEDDED / "models/policy", min_pixels=1024, max_pixels=25600, gradient_checkpointing=checkpointing
        )
        policy = wrap(base, LORA, seed=1)
        policy.model.train()
        assert policy.model.is_activation_checkpointing == checkpointing
        batch = policy.collate(environment.prompts(policy, examples.rows[:1]))
        seen = policy.model.get_base_model().model.get_image_features(batch["pixel_values"], batch["image_grid_thw"])
        assert not seen.pooler_output[0].requires_grad, "the frozen vision tower is differentiated"
        sft.backward(policy, environment, examples, 3, 1.0)
        found.append([p.grad for p in policy.model.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 0
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*found))


def test_an_embedding_trained_whole_stays_the_output_layer_too(environment, examples, tmp_path):
    """The base shares one matrix between both; after training and after loading they still are the same."""
    base = Policy.load(EMBEDDED / "models/policy", min_pixels=1024, max_pixels=25600)
    policy = wrap(base, LORA.model_copy(update={"modules_to_save": ("embed_tokens",)}), seed=1)
    before = policy.model.get_output_embeddings().weight.clone()
    options = SFT.model_copy(update={"lr": 1e-3, "steps": 3, "checkpoint_every": 2})
    for _ in sft.train(policy, environment, examples, options, 0, tmp_path / "runs"):
        pass
    save_adapter(policy, tmp_path / "adapter")
    again = Policy.load(EMBEDDED / "models/policy", tmp_path / "adapter", min_pixels=1024, max_pixels=25600)
    prompts = environment.prompts(policy, examples.rows)
    batch = policy.collate(prompts, [policy.response_ids(response) for response in examples.responses])
    with torch.no_grad():
        (trained, _), (loaded, _) = policy.logprobs(batch), again.logprobs(batch)
    assert torch.equal(trained, loaded)
    for one in (policy, again):
        learnt = one.model.get_output_embeddings()
        weight = getattr(learnt, "modules_to_save", {"default": learnt})["default"].weight
        assert not torch.equal(weight, before)
        assert torch.equal(weight, one.model.get_input_embeddings().modules_to_save["default"].weight)


def test_full_fine_tuning_trains_the_language_model_and_is_stored_whole(environment, examples, tmp_path):
    base = Policy.load(EMBEDDED / "models/policy", min_pixels=1024, max_pixels=25600)
    before = weights(base)
    policy = wrap(base, None, seed=1)
    options = SFT.model_copy(update={"lora": None, "lr": 1e-3, "steps": 2})
    list(sft.train(policy, environment, examples, options, 0, tmp_path / "runs"))
    changed = {name for name, value in weights(policy).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "visual" not in name}
    save_adapter(policy, tmp_path / "whole")
    again = Policy.load(EMBEDDED / "models/policy", tmp_path / "whole", min_pixels=1024, max_pixels=25600)
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(policy).items())
    once = CGPO.model_copy(update={"updates": 1})
    list(cgpo.train(again, environment, examples.rows, examples, once, 0, tmp_path / "cgpo"))
    assert moved(policy, again) > 0


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    checkpoints.save(tmp_path, 1, {"value": torch.ones(2)})
    checkpoints.save(tmp_path, 2, {"value": torch.zeros(2)})
    newest = max(tmp_path.glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:50])
    state = checkpoints.load(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert newest.name in capsys.readouterr().out


def test_only_the_newest_two_checkpoints_stay(tmp_path):
    for step in range(5):
        checkpoints.save(tmp_path, step, {})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-0000003.pt", "step-0000004.pt"]


def test_a_run_that_ran_out_of_memory_goes_on_with_a_smaller_micro_batch():
    content = load_yaml("params.yaml")
    content["cgpo"]["micro_batch"], content["policy"]["gradient_checkpointing"] = 1, True
    smaller, shipped = parse_params(content), load_params("params.yaml")
    assert smaller.result_settings("policy", "cgpo") == shipped.result_settings("policy", "cgpo")
    for section, key, value in (("cgpo", "lr", 1.0), ("policy", "max_pixels", 20_000), ("policy", "autocast", True)):
        other = {**content, section: {**content[section], key: value}}
        assert parse_params(other).result_settings("policy", "cgpo") != shipped.result_settings("policy", "cgpo"), key


def test_an_adapter_is_loaded_and_never_wrapped_again(environment, examples, tmp_path):
    policy = run_sft(environment, examples, tmp_path / "runs", stop=2)
    save_adapter(policy, tmp_path / "adapter")
    again = Policy.load(
        EMBEDDED / "models/policy", tmp_path / "adapter", min_pixels=1024, max_pixels=25600, trainable=True
    )
    assert [n for n, p in again.model.named_parameters() if p.requires_grad] == [
        n for n, p in policy.model.named_parameters() if p.requires_grad
    ]
    for name, value in weights(policy).items():
        assert torch.equal(value, weights(again)[name]), name
