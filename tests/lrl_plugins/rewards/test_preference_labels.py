import pytest
import torch
from ranked_answers import BERT, SENTENCES, beside, bound, noisy, optimiser_of, rollout_of, update, weights

from lrl_core.preferences.comparison import Comparison
from lrl_core.preferences.store import PreferenceStore
from lrl_core.types import Experience
from lrl_plugins.rewards import preference_labels
from lrl_plugins.rewards.preference import Preference
from lrl_plugins.rewards.preference_labels import Labels, kept_out, minibatches

torch.set_num_threads(1)
DRAWN = Experience(rollout_of(SENTENCES))


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'labels.db'}"


def judge_more(url, comparisons):
    store = PreferenceStore(url)
    for item in comparisons:
        question = store.ask(item.prompt, item.candidates)
        store.judge(question, item.ranks, who="tester")
    store.close()


def reading(url, **arguments):
    return bound(Preference(model=BERT, labels=url, **({"held_out": 0.0, "refresh": 2, "batch_size": 4} | arguments)))


def taken(reward, step, optimizer=None):
    """The comparisons of each lesson of this step, learnt where an optimiser is given."""
    lessons = []
    for lesson in reward.lessons(DRAWN, beside(step)):
        lessons.append([item.id for item in lesson.items])
        if optimizer is not None:
            update(reward, lesson, optimizer)
    return lessons


def test_new_labels_are_seen_at_the_next_refresh_and_learnt_once(url):
    reward = reading(url)
    assert taken(reward, 0) == []  # nobody has judged anything
    judge_more(url, noisy(6))
    assert taken(reward, 0) == []  # has looked in this step already
    assert taken(reward, 1) == []  # every two steps
    lessons = taken(reward, 2)
    assert [len(lesson) for lesson in lessons] == [4, 2]
    assert len({name for lesson in lessons for name in lesson}) == 6
    assert taken(reward, 2) == taken(reward, 4) == []  # nothing new
    judge_more(url, noisy(2, seed=1))
    assert sum(map(len, taken(reward, 6))) == 8  # old ones too


def test_a_withdrawn_judgment_is_news_and_no_longer_learnt(url):
    judge_more(url, noisy(3))
    reward = reading(url)
    assert sum(map(len, taken(reward, 0))) == 3
    store = PreferenceStore(url)
    store.withdraw(int(store.comparisons()[0].id.rpartition("/")[2]), who="tester")
    store.close()
    assert sum(map(len, taken(reward, 2))) == 2


def test_it_begins_to_learn_with_enough_labels_and_makes_several_passes(url):
    reward = reading(url, least=5, epochs=3)
    judge_more(url, noisy(4))
    assert taken(reward, 0) == []
    judge_more(url, noisy(1, seed=1))
    lessons = taken(reward, 2)
    assert [len(lesson) for lesson in lessons] == [4, 1] * 3
    passes = [lessons[i] + lessons[i + 1] for i in (0, 2, 4)]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(passes[2])
    assert passes[0] != passes[1] or passes[1] != passes[2]


def test_ties_are_no_labels(url):
    judge_more(url, [Comparison("p", ("a", "b"), (0, 0)), *noisy(2)])
    assert sum(map(len, taken(reading(url), 0))) == 2


def test_held_out_judgments_are_measured_and_never_learnt(url):
    judge_more(url, noisy(60))
    reward = reading(url, held_out=0.3, batch_size=16)
    learnt = [name for lesson in taken(reward, 0, optimiser_of(reward, 1e-3)) for name in lesson]
    kept = {item.id for item in reward.labels.kept}
    assert 8 <= len(kept) <= 28
    assert not kept & set(learnt)
    assert len(learnt) + len(kept) == 60
    (lesson, *_) = minibatches(noisy(4), 4, 1, 0)
    metrics = reward.learn(lesson).metrics
    assert metrics["preference/held_out_accuracy"] == pytest.approx(reward.held_out_accuracy)
    assert 0 <= reward.held_out_accuracy <= 1
    assert metrics["preference/labels"] == 60
    assert {"preference/accuracy", "preference/margin"} <= set(metrics)


def test_all_judgments_of_a_question_are_kept_out_together():
    def about(question, judgment):
        return Comparison("p", ("a", "b"), (0, 1), f"{question}/{judgment}")

    kept = [question for question in range(2000) if kept_out(about(question, 1), 0.25)]
    assert kept == [question for question in range(2000) if kept_out(about(question, 77), 0.25)]
    assert len(kept) == pytest.approx(500, abs=80)
    assert not any(kept_out(about(question, 1), 0.0) for question in range(200))


def test_before_episodes_are_drawn_nothing_is_learnt(url):
    judge_more(url, noisy(2))
    assert list(reading(url).lessons(Experience(), beside(0))) == []


def test_the_store_of_the_run_is_told_by_who_asks(url):
    judge_more(url, noisy(2))
    reward = reading("run")
    with pytest.raises(ValueError, match="expected the callback AskForLabels"):
        taken(reward, 0)
    reward.look_in(url)
    reward.look_in("sqlite:///elsewhere.db")  # it has its store
    assert sum(map(len, taken(reward, 0))) == 2


def test_one_that_does_not_learn_reads_nothing(url):
    judge_more(url, noisy(2))
    assert taken(reading(url, learns=False), 0) == []


def test_ranks_share_each_minibatch_out(monkeypatch):
    """Three ranks: as many lessons on each, the union of a lesson is one rank's; a rest of two is left out."""
    comparisons = noisy(14)
    alone = [[item.id for item in lesson.items] for lesson in minibatches(comparisons, 6, 2, seed=9)]
    assert [len(lesson) for lesson in alone] == [6, 6, 2] * 2
    shares = []
    for place in range(3):
        monkeypatch.setattr(preference_labels, "world_size", lambda: 3)
        monkeypatch.setattr(preference_labels, "rank", lambda place=place: place)
        shares.append([[item.id for item in lesson.items] for lesson in minibatches(comparisons, 6, 2, seed=9)])
    assert [len(share) for share in shares] == [4, 4, 4]
    together = [sorted(name for share in lessons for name in share) for lessons in zip(*shares, strict=True)]
    assert together == [sorted(lesson) for lesson in alone if len(lesson) == 6]


def test_other_ranks_take_what_the_first_one_found(monkeypatch):
    """Another rank never opens the store: its path does not even exist there."""
    told = (3, noisy(3))
    monkeypatch.setattr(preference_labels, "rank", lambda: 1)
    monkeypatch.setattr(preference_labels, "from_first_rank", {None: told}.__getitem__)
    labels = Labels("sqlite:////nowhere/at/all.db", refresh=1, least=1, held_out=0.0)
    assert labels.look(0) == told[1]
    assert labels.seen == 3


def test_a_resumed_run_goes_on_exactly(tmp_path):
    """Four steps at once; two steps, saved, loaded and two more: the same weights, scale and reference texts."""
    ends = []
    for stops in (False, True):
        url = f"sqlite:///{tmp_path / str(stops)}.db"
        judge_more(url, noisy(8))
        reward = reading(url, refresh=1, held_out=0.2)
        optimizer = optimiser_of(reward, 1e-2)
        for step in range(4):
            if step == 2 and stops:
                torch.save((reward.state_dict(), optimizer.state_dict()), tmp_path / "saved")
                state, rate = torch.load(tmp_path / "saved", weights_only=True)
                reward = reading(url, refresh=1, held_out=0.2)
                reward.load_state_dict(state)
                optimizer = optimiser_of(reward, 1e-2)
                optimizer.load_state_dict(rate)
            if step == 3:
                judge_more(url, noisy(2, seed=4))
            lessons = list(reward.lessons(DRAWN, beside(step, holding=step == 1))) if step == 2 else None
            assert not lessons  # what has been learnt already is remembered
            for lesson in reward.lessons(DRAWN, beside(step, holding=step == 1)):
                update(reward, lesson, optimizer)
        ends.append(reward)
    whole, resumed = ends
    assert torch.equal(weights(whole), weights(resumed))
    assert float(whole.gain) != 1
    assert (float(whole.gain), float(whole.bias)) == (float(resumed.gain), float(resumed.bias))
    assert whole.get_extra_state() == resumed.get_extra_state()
