"""Trainings on a handful of samples, as the tests of this folder start them."""

from rendered import EMBEDDED

from saliency_r1.params import Cgpo, Isr, Lora, Sft
from saliency_r1.policy import Policy
from saliency_r1.training import cgpo, sft
from saliency_r1.training.optimiser import wrap

LORA = Lora(r=4, alpha=8, dropout=0.0, targets=r".*language_model.*\.(q_proj|v_proj)$", modules_to_save=())

SFT = Sft(
    lr=1e-2, steps=6, batch_size=3, micro_batch=3, warmup=1, weight_decay=0.0, adam_epsilon=1e-6,
    max_grad_norm=1.0, average=0.5,
    lora=LORA, checkpoint_every=2, evaluate_samples=2,
)  # fmt: skip


def isr(every, weight=1.0, batch_size=2, moments="shared"):
    return Isr(every=every, weight=weight, batch_size=batch_size, moments=moments)


CGPO = Cgpo(
    algorithm="cgpo", normalise="batch", group_size=1, lr=1e-3, updates=4, batch_size=4, micro_batch=4,
    temperature=1.0, confidence="all", confidence_end_token=True, epochs=1, clip=0.2, kl=0.0, drift_every=0,
    isr=isr(2), warmup=1, weight_decay=0.0, adam_epsilon=1e-6,
    max_grad_norm=1.0, average=0.5,
    checkpoint_every=1,
)  # fmt: skip

WEIGHTS = {
    "sod": {"s_measure": 0.6, "iou": 0.3, "format": 0.1},
    "cosod": {"s_measure": 0.6, "iou": 0.3, "format": 0.1},
    "sis": {"matched_iou": 0.9, "format": 0.1},
}


def fresh(lora=LORA):
    base = Policy.load(EMBEDDED / "models/policy", min_pixels=1024, max_pixels=25600)
    return wrap(base, lora, seed=1)


def weights(policy):
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def moved(one, other):
    """The distance between two policies' trainable weights."""
    pairs = zip(one.model.parameters(), other.model.parameters())
    return sum((a - b).square().sum().item() for a, b in pairs if a.requires_grad) ** 0.5


def run_sft(environment, examples, runs, stop=None):
    policy = fresh()
    for row in sft.train(policy, environment, examples, SFT, 0, runs):
        if row["step"] == stop:
            return policy
    return policy


def run_cgpo(environment, examples, runs, stop=None, options=CGPO):
    policy, updates = fresh(), []
    for update in cgpo.train(policy, environment, examples.rows, examples, options, 0, runs):
        updates.append(update)
        if update.curve["update"] == stop:
            break
    return policy, updates
