"""When stored episodes are shown again, what they hold, and that a resumed run draws the same ones."""

import threading
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from prefix_tree import Tree, TreePolicy, TreeReward

from lrl_core.interfaces import Environment
from lrl_core.module import PolicyGradient
from lrl_core.testing.parts import check_replay
from lrl_core.testing.toy import ToySampler
from lrl_core.testing.toy_task import EOS, ToyTask
from lrl_core.types import Experience, Reply, RewardSignal, Rollout
from lrl_plugins.decoders.limits import Constraints
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.decoders.tempered import Tempered
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.objectives.subtb import Anneal, SubTB
from lrl_plugins.replays import buffer
from lrl_plugins.replays.buffer import Buffer

torch.set_num_threads(1)
# The task's three letters; a prompt's best answers begin with its own letter.
TREE = Tree(3, 3, lambda x, z: -0.8 * len(z) + (1.5 if z[:1] == (x,) else 0.0) - 0.1 * sum(z), prompts=3)
TASK = ToyTask(prompts=6, batch_size=3)


def decoder():
    return Tempered(Sample(max_length=4, samples=4, constraints=Constraints(end_at_limit=True)))


class Draws:
    """Fresh episodes of a uniform policy, judged, with the human answers beside them."""

    def __init__(self, rows, reward=True):
        batch = TASK._collate([(row, 0) for row in rows])
        self.prompts, self.calls = batch, 0
        self.reward = TreeReward(TREE) if reward else None
        self.decoder = TREE.bound(decoder())

    def __call__(self, groups=None):
        self.calls += 1
        rollout = self.decoder.decode(TreePolicy(TREE), self.prompts)
        rollout = replace(rollout, texts=tuple("abc"[row % 3] for row in range(len(rollout))))
        reward = None if self.reward is None else self.reward.score(rollout)
        return replace(self.expert(), rollout=rollout, reward=reward)

    def expert(self):
        return Experience(expert=Rollout.of_targets(self.prompts))


def bound(objective=None, reward=True, **options):
    replay = Buffer(**options)
    replay.bind(TASK.facts())
    played_by = TREE.bound(decoder())
    sampler = ToySampler(TreePolicy(TREE), played_by, TreeReward(TREE))
    sampler.objective = objective or SubTB()
    if not reward:
        sampler.reward = None
    replay.check(sampler)
    return replay


def step(replay, draws):
    (experience,) = replay.batches(draws, draws.expert)
    return experience


def lines(experience):
    rollout = experience.rollout
    rows = zip(rollout.prompts.group.tolist(), rollout.tokens.tolist(), rollout.lengths.tolist(), strict=True)
    return [(group, tuple(tokens[:length])) for group, tokens, length in rows]


def test_conforms():
    check_replay(Buffer)


def test_a_prompt_is_drawn_before_it_is_shown_again():
    torch.manual_seed(0)
    replay, draws, others = bound(share=1.0), Draws([0, 1]), Draws([0, 2])
    fresh = step(replay, draws)
    again = [step(replay, draws) for _ in range(5)]
    assert draws.calls == 1
    step(replay, others)  # one of its prompts is new
    assert others.calls == 1
    known = set(lines(fresh))
    for experience in again:
        assert set(lines(experience)) <= known
        assert experience.rollout.prompts.group.tolist() == [0] * 4 + [1] * 4
        assert experience.expert is not None
        assert experience.advantage is None


def test_the_share_of_steps_that_show_stored_episodes():
    torch.manual_seed(0)
    replay, draws = bound(share=0.3), Draws([0])
    for _ in range(121):
        step(replay, draws)
    assert 121 - draws.calls == pytest.approx(36, abs=16)
    assert draws.calls > 1
    none, draws = bound(share=0.0), Draws([0])
    for _ in range(5):
        step(none, draws)
    assert draws.calls == 5


def test_rewards_come_back_as_they_were_given_whatever_the_objective_makes_of_them():
    torch.manual_seed(0)
    replay, draws = bound(share=1.0, samples=60, distance=0.0), Draws([0, 1])
    fresh, again = step(replay, draws), step(replay, draws)
    rewards = zip(fresh.reward.total.tolist(), fresh.reward.by_prefix.tolist(), strict=True)
    given = dict(zip(lines(fresh), rewards, strict=True))
    assert set(lines(again)) <= set(given)
    assert len(set(lines(again))) > 3
    rows = zip(lines(again), again.reward.total.tolist(), again.reward.by_prefix.tolist(), strict=True)
    for line, total, by_prefix in rows:
        length = len(line[1]) + 1
        assert total == pytest.approx(given[line][0])
        assert by_prefix[:length] == pytest.approx(given[line][1][:length])
        assert by_prefix[length:] == [by_prefix[length - 1]] * (len(by_prefix) - length)
    # and so the temperature is that of today, once: the same loss as from the episodes themselves
    objective = SubTB(temperature=0.5)
    same = TREE.rollout([line[:-1] for _, line in lines(again)], [group % 3 for group, _ in lines(again)])
    expected = objective.loss(TreePolicy(TREE), Experience(same, TreeReward(TREE).score(same))).total
    assert objective.loss(TreePolicy(TREE), again).total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_stored_episodes_are_read_untempered_with_the_limit_of_the_decoder():
    torch.manual_seed(0)
    replay, draws = bound(share=1.0), Draws([0])
    step(replay, draws)
    sampling = step(replay, draws).rollout.sampling
    assert sampling.temperature == 1
    assert (sampling.limit, sampling.eos) == (4, EOS)


def test_the_number_shown():
    torch.manual_seed(0)
    for samples, expected in ((None, 4), (2, 2), (9, 9)):
        replay, draws = bound(share=1.0, samples=samples), Draws([0, 4])
        step(replay, draws)
        assert step(replay, draws).rollout.prompts.group.tolist() == [0] * expected + [4] * expected


def test_draws_after_a_resume_are_those_without_one():
    torch.manual_seed(0)
    replay, draws = bound(share=0.7), Draws([0, 1, 2])
    for _ in range(6):
        step(replay, draws)
    copy = bound(share=0.7)
    copy.load_state_dict(replay.state_dict())
    for seed in range(6):
        torch.manual_seed(seed)
        first = step(replay, draws)
        torch.manual_seed(seed)
        second = step(copy, draws)
        assert lines(first) == lines(second)
        assert torch.equal(first.reward.total, second.reward.total)
        assert first.rollout.sampling == second.rollout.sampling
    assert replay.memory.prompts == copy.memory.prompts


def test_without_a_reward_the_newest_are_shown_alike():
    torch.manual_seed(0)
    replay, draws = bound(objective=CrossEntropyOnly(), reward=False, share=1.0, size=3), Draws([0], reward=False)
    fresh, again = step(replay, draws), step(replay, draws)
    assert again.reward is None
    newest = [*dict.fromkeys(reversed(lines(fresh)))][:3]
    assert set(lines(again)) <= set(newest)


class CrossEntropyOnly(CrossEntropy):
    """An objective that needs no comparison, whatever CrossEntropy says of itself."""

    compares = judges = False


def test_unjudged_episodes_are_not_stored():
    torch.manual_seed(0)
    replay, draws = bound(share=1.0), Draws([0])
    draws.reward = Nobody()
    step(replay, draws)
    step(replay, draws)
    assert draws.calls == 2


class Nobody(TreeReward):
    def __init__(self):
        super().__init__(TREE)

    def score(self, rollout):
        return RewardSignal(torch.full((len(rollout),), torch.nan))


# Human answers


def test_human_answers_are_judged_and_shown_from_the_start():
    torch.manual_seed(0)
    replay, draws = bound(share=1.0, answers=True), Draws([0, 1])
    experience = step(replay, draws)
    assert draws.calls == 0
    assert set(lines(experience)) == {(0, (0, 1, EOS)), (1, (1, 2, EOS))}
    expected = TreeReward(TREE).score(experience.rollout)
    assert experience.reward.total.tolist() == pytest.approx(expected.total.tolist())
    assert torch.allclose(experience.reward.by_prefix.double(), expected.by_prefix)
    assert set(experience.rollout.texts) == {texts[0] for texts in draws.prompts.references}
    assert replay.seeded == {0, 1}
    copy = bound(share=1.0, answers=True)
    copy.load_state_dict(replay.state_dict())
    assert copy.seeded == {0, 1}


def test_human_answers_that_could_not_be_drawn_are_left_out():
    torch.manual_seed(0)
    replay, draws = bound(share=1.0, answers=True), Draws([0, 1])
    replay.sampling = replace(replay.sampling, banned=(2,))
    step(replay, draws)
    assert draws.calls == 1  # the answer of the second prompt holds a token that is never drawn


def test_a_task_without_answers_is_refused():
    replay, draws = bound(answers=True), Draws([0])
    draws.prompts = replace(draws.prompts, targets=None, target_lengths=None)
    with pytest.raises(ValueError, match="answers: true, but the prompts carry no human answers"):
        step(replay, draws)


# Refusals


class Shuts(Environment):
    closes = (1,)

    def start(self, prompts):
        return [None] * len(prompts)

    def reply(self, state, said):
        return Reply()


class Relative(TreeReward):
    comparable = False


def test_refusals():
    with pytest.raises(ValueError, match=r"Reinforce compares episodes .* SubTB or SequenceMatch"):
        bound(objective=Reinforce())
    with pytest.raises(ValueError, match="environment Shuts forbids tokens"):
        Buffer().bind(replace(TASK.facts(), environment=Shuts()))
    sampler = ToySampler(TreePolicy(TREE), TREE.bound(decoder()), Relative(TREE))
    sampler.objective = SubTB()
    with pytest.raises(ValueError, match="rewards of Relative cannot be compared between steps"):
        Buffer().check(sampler)
    Buffer(priority="uniform").check(sampler)
    wrong = ({"share": 1.5}, {"size": 0}, {"samples": 0}, {"temperature": 0.0}, {"distance": 1.0})
    for options in wrong:
        with pytest.raises(ValueError, match=f"Buffer: {next(iter(options))} is"):
            Buffer(**options)


# Several processes


def test_the_other_rank_decides_with_this_one(monkeypatch):
    """The first rank's coin counts, and a prompt that the other rank has never seen makes both draw."""
    torch.manual_seed(0)
    other = {"coin": 0.0, "groups": [0]}

    def of_each_rank(own):
        return [(other["coin"], other["groups"], []), own] if isinstance(own, tuple) else [[], own]

    monkeypatch.setattr(buffer, "of_each_rank", of_each_rank)
    replay, draws = bound(share=0.5), Draws([0])
    step(replay, draws)
    shown = [step(replay, draws) for _ in range(5)]
    assert len(shown) == 5
    assert draws.calls == 1
    other["coin"] = 0.9
    step(replay, draws)
    assert draws.calls == 2
    other.update(coin=0.0, groups=[5])
    step(replay, draws)
    assert draws.calls == 3


class Meeting:
    """Two threads in the place of two processes: what each gives, in their order, once both have come."""

    def __init__(self):
        self.barrier, self.given = threading.Barrier(2, timeout=60), [None, None]

    def of_each_rank(self, own):
        self.given[int(threading.current_thread().name)] = own
        self.barrier.wait()
        given = [*self.given]
        self.barrier.wait()
        return given


def test_two_ranks_keep_one_buffer(monkeypatch):
    """Each draws for prompts of its own; both hold the same episodes of all prompts, in the same order."""
    monkeypatch.setattr(buffer, "of_each_rank", Meeting().of_each_rank)
    torch.manual_seed(0)
    replays = [bound(share=0.5, answers=True) for _ in range(2)]
    draws = [Draws([2 * rank, 2 * rank + 1]) for rank in range(2)]

    def train(rank):
        for _ in range(12):
            step(replays[rank], draws[rank])

    threads = [threading.Thread(target=train, args=(rank,), name=str(rank)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replays[0].memory.prompts == replays[1].memory.prompts
    assert {*replays[0].memory.prompts} == {0, 1, 2, 3}
    assert replays[0].seeded == replays[1].seeded == {0, 1, 2, 3}
    assert draws[0].calls == draws[1].calls
    assert 0 < draws[0].calls < 12


# In training


def fit(folder, epochs, ckpt=None):
    torch.manual_seed(3)
    module = PolicyGradient(
        policy=TreePolicy(TREE),
        objective=SubTB(temperature=Anneal(1.0, 0.5, steps=6)),
        replay=Buffer(share=0.5, answers=True),
        task=ToyTask(prompts=6, batch_size=3).facts(),
        decoder=decoder(),
        reward=TreeReward(TREE),
    )
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, limit_val_batches=0, logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
        callbacks=[ModelCheckpoint(dirpath=folder, filename=f"epochs-{epochs}")],
    )  # fmt: skip
    trainer.fit(module, ToyTask(prompts=6, batch_size=3), ckpt_path=ckpt, weights_only=None if ckpt is None else False)
    return module


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = fit(tmp_path, 6)
    fit(tmp_path, 3)
    checkpoint = tmp_path / "epochs-3.ckpt"
    torch.load(checkpoint, weights_only=True)  # what other runs start from
    resumed = fit(tmp_path / "again", 6, ckpt=checkpoint)
    assert torch.equal(whole.policy.table, resumed.policy.table)
    assert whole.policy.table.abs().max() > 0
    assert int(resumed.objective.steps) == 12
    assert whole.replays[0].memory.prompts == resumed.replays[0].memory.prompts
    assert len(whole.replays[0].memory.prompts) == 6
