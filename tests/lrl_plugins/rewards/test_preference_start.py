import pytest
import torch
from lightning.pytorch import Trainer
from ranked_answers import (
    BERT,
    FACTS,
    GPT2,
    SENTENCES,
    batch_of,
    bound,
    noisy,
    optimiser_of,
    prompts_of,
    rollout_of,
    update,
    weights,
)
from torch import nn

from lrl_core.alone import LearnerAlone
from lrl_core.interfaces import bind_all
from lrl_core.scoring import judge
from lrl_plugins.learners.masked_lm import MaskedLM
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.rewards.preference import Preference
from lrl_plugins.rewards.sum import Sum

torch.set_num_threads(1)


def trained(**arguments):
    """A preference model that has learnt a little."""
    reward = bound(Preference(**({"model": BERT} | arguments)))
    optimizer = optimiser_of(reward, 1e-2)
    for seed in range(3):
        (lesson,) = reward.lessons(batch_of(noisy(4, seed=seed)), None)
        update(reward, lesson, optimizer)
    return reward


def saved(part, prefix, path):
    state = {f"{prefix}{name}": value for name, value in part.state_dict().items()}
    torch.save({"state_dict": {"policy.other": torch.zeros(2)} | state}, path)
    return str(path)


@pytest.mark.parametrize("prefix", ["learner.", "reward.", "reward.terms.preference."])
def test_a_trained_one_is_taken_whole_wherever_it_was(prefix, tmp_path):
    reward = trained()
    path = saved(reward, prefix, tmp_path / "run.ckpt")
    again = bound(Preference(model=BERT, start_from=path), seed=7)
    assert torch.equal(weights(again), weights(reward))
    assert bool(again.taught)


def test_its_scores_are_rescaled_on_the_candidates_that_it_learnt_from(tmp_path):
    reward = trained()
    again = bound(Preference(model=BERT, start_from=saved(reward, "learner.", tmp_path / "run.ckpt")), seed=7)
    texts = [text for _, text in reward.references.texts]
    assert len(texts) == 24
    total = judge(again, rollout_of(texts)).total
    assert total.mean().item() == pytest.approx(0, abs=1e-5)
    assert total.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_two_that_fit_are_too_many(tmp_path):
    both = nn.ModuleDict({"one": trained(), "two": trained()})
    path = saved(both, "reward.terms.", tmp_path / "run.ckpt")
    with pytest.raises(ValueError, match=r"reward.terms.one., reward.terms.two. all fit"):
        bound(Preference(model=BERT, start_from=path))


def test_the_encoder_of_a_warm_up_is_taken_with_a_head_of_its_own(tmp_path):
    warm = bound(MaskedLM(model=BERT), seed=3)
    path = saved(warm, "learner.", tmp_path / "run.ckpt")
    fresh = bound(Preference(model=BERT), seed=7)
    reward = bound(Preference(model=BERT, start_from=path), seed=7)
    assert torch.equal(weights(reward.network.trunk), weights(warm.encoder))
    assert torch.equal(reward.network.head.weight, fresh.network.head.weight)
    assert not bool(reward.taught)
    assert judge(reward, rollout_of(SENTENCES)).total.isnan().all()


def test_the_trunk_of_a_policy_is_taken(tmp_path):
    torch.manual_seed(3)
    policy = CausalLM(config=GPT2)
    bind_all(policy, FACTS)
    path = saved(policy, "policy.", tmp_path / "run.ckpt")
    reward = bound(Preference(model=GPT2, start_from=path), seed=7)
    trunk = dict(policy.reader.model.transformer.named_parameters())
    for name, value in reward.network.trunk.named_parameters():
        assert torch.equal(value, trunk[name]), name


def test_what_fits_nowhere_is_refused(tmp_path):
    path = saved(trained(), "learner.", tmp_path / "run.ckpt")
    with pytest.raises(ValueError, match="no part of which has the"):
        bound(Preference(model=BERT | {"hidden_size": 32}, start_from=path))


def test_it_starts_inside_a_sum_too(tmp_path):
    path = saved(trained(), "learner.", tmp_path / "run.ckpt")
    both = Sum({"liked": Preference(model=BERT, start_from=path)})
    bind_all(both, FACTS)
    assert judge(both, rollout_of(SENTENCES)).total.isfinite().all()


def fit(folder, epochs, ckpt=None):
    torch.manual_seed(0)
    module = LearnerAlone(
        Preference(model=BERT, loss="plackett_luce", updates=2), FACTS, gradient_clip=1.0, token_budget=120
    )
    batches = [prompts_of(noisy(6, size=3, seed=i)) for i in range(4)]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    held = torch.utils.data.DataLoader([prompts_of(noisy(20, size=3, seed=9))], batch_size=None)
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, loader, held, ckpt_path=ckpt, weights_only=False if ckpt else None)
    return trainer, module


def test_trained_alone_it_is_measured_and_resumes_exactly(tmp_path):
    trainer, whole = fit(tmp_path, 2)
    measured = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    assert set(measured) == {
        "val/accuracy", "val/margin", "val/log_loss", "val/brier", "val/calibration_error", "val/kendall_tau"
    }  # fmt: skip
    half, _ = fit(tmp_path, 1)
    half.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = fit(tmp_path, 2, str(tmp_path / "half.ckpt"))
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.learner.get_extra_state()["texts"] == resumed.learner.get_extra_state()["texts"]
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = bound(Preference(model=BERT, start_from=str(tmp_path / "last.ckpt")), seed=7)
    assert torch.equal(weights(again), weights(whole.learner))
