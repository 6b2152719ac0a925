"""Runs that ask: end to end with a real store and a scripted labeller."""

import pytest
import torch
from lightning.pytorch import Callback

from lrl_core.functional import masked_mean
from lrl_core.interfaces import Learner, Reward
from lrl_core.preferences.reading import ReadsLabels
from lrl_core.preferences.store import PreferenceStore
from lrl_core.types import Loss, RewardSignal
from lrl_plugins.callbacks import ask_for_labels
from lrl_plugins.callbacks.ask_for_labels import AskForLabels
from lrl_plugins.decoders.sample import Sample

STEPS = 3
"""Steps of an epoch: 12 prompts, 4 in each."""


class CountsB(Reward):
    """One more for every b."""

    bound = False

    def bind(self, facts):
        self.bound = True

    def score(self, rollout):
        assert self.bound
        return RewardSignal(torch.tensor([float(text.count("b")) for text in rollout.texts]))


class Learning(Reward, Learner):
    """A reward with a number of its own, so that a run may hold the policy still."""

    optimizer = torch.optim.SGD

    def __init__(self):
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(()))
        self.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1)

    def score(self, rollout):
        return RewardSignal((rollout.tokens == 0).sum(1).float() + self.number.detach())

    def count(self, lesson):
        return torch.ones(())

    def learn(self, lesson):
        return Loss((self.number - masked_mean(lesson.reward.total, lesson.reward.judged)) ** 2)


def asking(**options):
    return AskForLabels(**{"total": 6, "spread": 4, "candidates": 3, "labeller": CountsB()} | options)


def labels(folder):
    store = PreferenceStore(str(folder / "run" / "labels.db"))
    found = store.questions(), store.judgments()
    store.close()
    return found


def test_questions_and_judgments_of_a_run(short_run, tmp_path):
    caller = asking(total=5, questions=2, answer="ranking")
    _, trainer = short_run(caller, epochs=3)
    questions, judgments = labels(tmp_path)
    assert len(questions) == len(judgments) == 5
    assert {question.prompt for question in questions} <= {"", "b", "c"}  # a is the padding of the toy task
    for question, judgment in zip(questions, judgments, strict=True):
        counts = [text.count("b") for text in question.candidates]
        order = sorted(set(counts), reverse=True)
        assert judgment.ranks == tuple(order.index(count) for count in counts)
        assert judgment.who == "script:CountsB"
        assert len(set(question.candidates)) == len(counts) >= 2
    assert trainer.callback_metrics["labels/questions"] == trainer.callback_metrics["labels/judged"] == 5


def test_the_rest_is_spread_over_the_reinforcement_phase(short_run, tmp_path):
    """6 (1 - (1 - t/4)^2) at t = 1..4 is 2.6, 4.5, 5.6, 6: none fall short, for every prompt has two answers."""
    torch.manual_seed(0)
    short_run(asking(questions=4), epochs=3, decoder=Sample(max_length=8, samples=3))
    assert [question.step for question in labels(tmp_path)[0]] == [0, 0, 1, 1, 2, 3]


def test_every_and_questions_limit_a_step(short_run, tmp_path):
    short_run(asking(total=100, questions=1, every=2, spread=1), epochs=2, decoder=Sample(max_length=8, samples=3))
    assert [question.step for question in labels(tmp_path)[0]] == [0, 2, 4]


def test_offline_asks_only_while_the_policy_holds_still(short_run, tmp_path):
    options = {"reward": Learning(), "learners_first": 1, "decoder": Sample(max_length=8, samples=3)}
    short_run(asking(before=6, questions=3), epochs=3, **options)
    assert [question.step for question in labels(tmp_path)[0]] == [0, 0, 0, 1, 1, 1]


def test_what_the_holding_phase_had_no_room_for_is_asked_later_with_a_warning(short_run, tmp_path):
    options = {"reward": Learning(), "learners_first": 1, "decoder": Sample(max_length=8, samples=3)}
    with pytest.warns(UserWarning, match="3 questions were asked while the policy held still; before is 5"):
        short_run(asking(total=5, before=5, questions=1), epochs=2, **options)
    assert [question.step for question in labels(tmp_path)[0]] == [0, 1, 2, 3, 4]


def test_without_a_labeller_the_questions_wait_for_people(short_run, tmp_path):
    _, trainer = short_run(asking(labeller=None), epochs=2)
    questions, judgments = labels(tmp_path)
    assert len(questions) == 6
    assert judgments == []
    assert trainer.callback_metrics["labels/judged"] == 0


def test_what_the_labeller_cannot_judge_is_skipped(short_run, tmp_path):
    class Unsure(CountsB):
        def score(self, rollout):
            return RewardSignal(torch.full((len(rollout),), torch.nan))

    short_run(asking(labeller=Unsure()), epochs=2)
    assert {judgment.ranks for judgment in labels(tmp_path)[1]} == {None}


def rows(folder):
    questions, judgments = labels(folder)
    return [(q.prompt, q.candidates, q.step) for q in questions], [(j.question, j.ranks, j.key) for j in judgments]


def test_a_resumed_run_asks_what_the_whole_run_would(short_run, tmp_path):
    """Noisy answers too. The resumed run has a store of its own, which the labels of the checkpoint fill first."""

    def noisy():
        return asking(total=9, spread=6, questions=2, temperature=0.7)

    _, trainer = short_run(noisy(), epochs=1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    (tmp_path / "run" / "labels.db").unlink()
    short_run(noisy(), epochs=2, ckpt_path=tmp_path / "half.ckpt")
    resumed = rows(tmp_path)
    (tmp_path / "run" / "labels.db").unlink()
    short_run(noisy(), epochs=2)
    assert resumed == rows(tmp_path)
    assert len(resumed[0]) == 9


def test_a_repeated_step_asks_nothing_twice(short_run, tmp_path):
    """A run that is started anew in its old folder asks the same questions: the store knows them."""
    short_run(asking(), epochs=2)
    first = rows(tmp_path)
    short_run(asking(), epochs=2)
    assert rows(tmp_path) == first


def test_labelling_leaves_the_training_as_it_is(short_run, tmp_path):
    module, _ = short_run(epochs=2)
    asked, _ = short_run(asking(temperature=1.0), epochs=2)
    for one, other in zip(module.policy.parameters(), asked.policy.parameters(), strict=True):
        assert one.equal(other)


def test_a_store_of_ones_own(short_run, tmp_path):
    short_run(asking(store=str(tmp_path / "shelf" / "mine.db")), epochs=2)
    store = PreferenceStore(str(tmp_path / "shelf" / "mine.db"))
    assert len(store.comparisons()) == 6
    assert not (tmp_path / "run" / "labels.db").exists()


class Reader(Learning, ReadsLabels):
    """Keeps what it is told."""

    url = None

    def look_in(self, url):
        self.url = url


def test_who_learns_from_labels_is_told_where_they_are(short_run, tmp_path):
    reader = Reader()
    short_run(asking(), epochs=1, reward=reader)
    assert reader.url == str(tmp_path / "run" / "labels.db")


class Person(Callback):
    """Answers at the third look."""

    def __init__(self, caller):
        self.caller, self.looks = caller, 0

    def sleep(self, seconds):
        self.looks += 1
        if self.looks == 3:
            for question in self.caller.store.questions():
                self.caller.store.judge(question.id, [0] + [1] * (len(question.candidates) - 1), who="me")


@pytest.mark.parametrize(("wait", "looks"), [(100.0, 3), (4.0, 2), (0.0, 0)])
def test_waits_for_people_while_the_policy_holds_still(short_run, monkeypatch, wait, looks):
    caller = asking(labeller=None, total=2, before=2, wait=wait)
    person = Person(caller)
    monkeypatch.setattr(ask_for_labels, "time", person)
    options = {"reward": Learning(), "learners_first": 1, "decoder": Sample(max_length=8, samples=3)}
    short_run(caller, epochs=2, **options)
    assert person.looks == looks


def test_recipes_that_cannot_ask_are_refused(short_run):
    with pytest.raises(ValueError, match="candidates is 4, but the decoder draws 3 answers"):
        short_run(AskForLabels(), epochs=1)
    with pytest.raises(ValueError, match=r"before is 2, but the policy moves from the first step.*learners_first"):
        short_run(asking(before=2), epochs=1)


@pytest.mark.parametrize(
    "bad", [{"total": 5, "before": 6}, {"questions": 0}, {"candidates": 1}, {"spread": 0}, {"every": 0}]
)
def test_impossible_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="expected 0 <= before <= total"):
        AskForLabels(**bad)


@pytest.mark.parametrize("bad", [{"tie": -1.0}, {"temperature": -0.1}, {"wait": -1.0}, {"answer": "worst"}])
def test_impossible_labellers_are_refused(bad):
    with pytest.raises(ValueError, match="expected numbers >= 0 and one of best, ranking"):
        AskForLabels(**bad)
