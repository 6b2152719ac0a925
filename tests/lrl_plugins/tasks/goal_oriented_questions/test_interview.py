"""The environment, alone and in the real loop."""

from itertools import product

import pytest
import torch

from lrl_core.episodes import play
from lrl_core.functional import length_mask
from lrl_core.interfaces import bind_all
from lrl_core.sampling import Sampling
from lrl_core.testing.toy import TablePolicy
from lrl_core.types import Advantage, Experience, Prompts, RewardSignal
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.tasks.goal_oriented_questions.data import GoalOrientedQuestions
from lrl_plugins.tasks.goal_oriented_questions.players import Guesser, Oracle
from lrl_plugins.tasks.goal_oriented_questions.tables import AttributeTable
from lrl_plugins.tasks.goal_oriented_questions.worlds import Game

RED, LARGE, ROUND = "is it red ?", "is it large ?", "is it round ?"


def prompts_of(groups):
    count = len(groups)
    return Prompts(torch.zeros(count, 0, dtype=torch.long), torch.zeros(count, dtype=torch.long), torch.tensor(groups))


def say(task, games, lines):
    """Play lines that are written down, one per game; what stands in the place of an answer is not said."""
    tokenizer = task.tokenizer
    script = [[*tokenizer.encode(line.replace("...", "<unk>")), tokenizer.eos] for line in lines]
    longest = max(map(len, script))
    table = torch.tensor([line + [tokenizer.eos] * (longest - len(line)) for line in script])
    held = torch.arange(len(lines))

    def choose(logits, position):
        assert len(logits) == len(held), "no row leaves before all do"
        return table[held, int(position[0])], torch.zeros(len(logits))

    policy = TablePolicy(torch.zeros(1, len(tokenizer)))
    return play(
        policy, prompts_of(games), choose, longest, pad=0, eos=tokenizer.eos, sampling=Sampling(),
        environment=task.environment,
    )  # fmt: skip


def ask(task, *questions, game=0):
    """What each question is paid, and the state afterwards; "" is the end token."""
    environment, tokenizer = task.environment, task.tokenizer
    (state,) = environment.start(prompts_of([game]))
    replies = [environment.reply(state, tokenizer.encode(line) if line else [tokenizer.eos]) for line in questions]
    return replies, state


def test_random_questions_on_eight_objects_and_the_optimum_in_the_real_loop():
    """All 27 orders of questions about all eight objects: 0.583333 on average, 1 where the three are different."""
    task = GoalOrientedQuestions(turns=3)
    task.facts()
    games, orders = zip(*product(range(8), product((RED, LARGE, ROUND), repeat=3)), strict=True)
    rollout = say(task, list(games), [" ... ".join(order) + " ..." for order in orders])
    success = rollout.environment_reward.sum(1)
    assert success.mean().item() == pytest.approx(0.583333, abs=1e-6)
    different = torch.tensor([len(set(order)) == 3 for order in orders])
    assert success[different].tolist() == [1.0] * (8 * 6)
    assert success[torch.tensor([len(set(order)) == 2 for order in orders])].eq(0.5).all()
    assert rollout.terminated.all()
    assert rollout.lengths.eq(15).all()  # three times four words and an answer, and no end token
    assert rollout.action_mask.int().tolist() == [[1, 1, 1, 1, 0] * 3] * (8 * 27)
    # the reward stands on the question mark of the last question
    assert (rollout.environment_reward != 0).nonzero()[:, 1].eq(13).all()
    said = [task.tokenizer.decode(line.tolist()) for line in rollout.tokens]
    assert "is it red ? yes is it large ? no is it round ? yes" in said


def test_prices_and_bonuses_by_hand():
    task = GoalOrientedQuestions(turns=3, price_per_turn=0.1, informativeness=0.05)
    task.facts()
    replies, state = ask(task, RED, RED, LARGE)
    assert [task.tokenizer.decode(reply.tokens) for reply in replies] == ["yes", "yes", "yes"]
    # a bit, nothing new, a bit and the guess among two objects
    assert [reply.reward for reply in replies] == pytest.approx([0.05 - 0.1, -0.1, 0.05 - 0.1 + 0.5])
    assert [reply.done for reply in replies] == [False, False, True]
    assert not state.stopped


def test_the_end_token_ends_the_game_at_no_price():
    task = GoalOrientedQuestions(turns=3, price_per_turn=0.1)
    task.facts()
    (asked, stopped), state = ask(task, RED, "", game=7)
    assert asked.reward == pytest.approx(-0.1)
    assert task.tokenizer.decode(asked.tokens) == "no"
    assert (stopped.tokens, stopped.reward, stopped.done) == ((), 0.25, True)
    assert state.stopped
    ((at_once,), _) = ask(task, "")
    assert (at_once.reward, at_once.done) == (1 / 8, True)


def test_an_unfinished_question_before_the_end_token_is_no_question():
    task = GoalOrientedQuestions(turns=3)
    task.facts()
    (state,) = task.environment.start(prompts_of([0]))
    reply = task.environment.reply(state, [*task.tokenizer.encode("is it red"), task.tokenizer.eos])
    assert reply.done
    assert state.turns == []


def test_a_question_that_does_not_end_counts_and_is_not_understood():
    task = GoalOrientedQuestions(turns=2, longest_question=4)
    task.facts()
    rollout = say(task, [0], ["is it red red ... is it red ? ..."])
    assert task.tokenizer.decode(rollout.tokens[0].tolist()) == "is it red red unknown is it red ? yes"
    assert rollout.environment_reward.sum() == 0.25
    assert rollout.terminated.all()


def test_an_environments_word_gets_no_gradient_though_the_policy_says_it_too():
    """Shifting what is known before an answer moves no loss; before the policy's own `yes` it does."""
    task = GoalOrientedQuestions(turns=2, longest_question=4)
    facts = task.facts()
    torch.manual_seed(0)
    policy, decoder = Recurrent(embedding=8, hidden=16), Sample(max_length=12, samples=16)
    for part in (policy, decoder):
        bind_all(part, facts)
    rollout = decoder.decode(policy, next(iter(task.val_dataloader())), task.environment)
    yes = rollout.tokens == task.tokenizer.answers["yes"]
    real = length_mask(rollout.lengths, rollout.tokens.shape[1])
    answers, own = real & ~rollout.action_mask, yes & rollout.action_mask
    answers_yes = torch.isin(rollout.tokens, torch.tensor(list(task.tokenizer.answers.values())))
    assert answers.any()
    assert own.any(), "the policy says the oracle's word too"
    assert bool(answers_yes[answers].all())
    advantage = Advantage(rollout.action_mask * torch.linspace(1, 2, len(rollout))[:, None])
    experience = Experience(rollout, RewardSignal(rollout.environment_reward.sum(1)), advantage)

    def loss(shift):
        hook = policy.cells.register_forward_hook(lambda _, __, out: (out[0] + shift, out[1]))
        try:
            return Reinforce().loss(policy, experience).total
        finally:
            hook.remove()

    shift = torch.zeros(*rollout.tokens.shape, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(shift), shift)
    moved = gradient.abs().sum(2) > 0
    assert not moved[~rollout.action_mask].any()
    assert moved[own].all()
    noise = torch.randn(*rollout.tokens.shape, 16)
    still = loss(torch.zeros_like(noise))
    assert loss(noise * answers[:, :, None]).equal(still)
    assert not loss(noise * own[:, :, None]).equal(still)


class Strange(Oracle):
    """Says something else."""

    def answer(self, game, question):
        return "maybe"


class Failing(AttributeTable):
    """Breaks at the second object."""

    def answer(self, game, question, index):
        if index == 1:
            raise KeyError("no such fact")
        return super().answer(game, question, index)


def test_an_answer_outside_the_vocabulary_stops_with_name_row_and_transcript():
    task = GoalOrientedQuestions(oracle=Strange())
    task.facts()
    got = r"Strange in AttributeTable: got the answer 'maybe' to 'is it red \?' in game 'train-0', expected one"
    with pytest.raises(RuntimeError, match=rf"Interview, episode 0: raised ValueError: {got}.*so far: \["):
        say(task, [0, 1], [f"{RED} ..."] * 2)


def test_a_world_that_raises_stops_with_name_row_and_transcript():
    task = GoalOrientedQuestions(Failing(), turns=2)
    line = task.tokenizer.encode(RED)
    with pytest.raises(RuntimeError, match=rf"Interview, episode 1: raised KeyError.*so far: \[{line[0]}, {line[1]}, "):
        say(task, [0, 1], [f"{RED} ..."] * 2)


class Certain(Guesser):
    """Is half sure of the first object, and wholly after a question."""

    def beliefs(self, game, turns):
        rest = len(game.objects) - 1
        return [1.0, *[0.0] * rest] if turns else [0.5, *[0.5 / rest] * rest]


def test_players_can_be_others():
    task = GoalOrientedQuestions(turns=1, guesser=Certain(), informativeness=1.0)
    task.facts()
    ((right,), _), ((wrong,), _) = ask(task, RED, game=0), ask(task, RED, game=1)
    bits = 0.5 + 7 * (0.5 / 7) * (torch.tensor(14.0).log2().item())
    assert right.reward == pytest.approx(bits + 1, abs=1e-5)
    assert wrong.reward == pytest.approx(bits, abs=1e-5)


def test_prompts_of_another_task_are_refused():
    task = GoalOrientedQuestions()
    task.facts()
    with pytest.raises(ValueError, match="Interview: got a prompt of group 99, expected one of the 24 games"):
        task.environment.start(prompts_of([99]))


def test_replaying_an_episode_gives_the_same_success():
    task = GoalOrientedQuestions(turns=3, longest_question=4, batch_size=8)
    facts = task.facts()
    torch.manual_seed(1)
    policy, decoder = Recurrent(embedding=8, hidden=16), Sample(max_length=15, samples=8)
    for part in (policy, decoder):
        bind_all(part, facts)
    rollout = decoder.decode(policy, next(iter(task.train_dataloader())), task.environment)
    for row, paid in enumerate(rollout.environment_reward.sum(1).tolist()):
        length = rollout.lengths[row]
        game: Game = task.environment.games[int(rollout.prompts.group[row])]
        lines = rollout.tokens[row, :length].tolist(), rollout.action_mask[row, :length].tolist()
        state = task.environment.replay(game, *lines)
        assert state.done
        assert task.environment.success(state) == pytest.approx(paid)


def test_the_price_changes_the_reward_and_nothing_else():
    free, dear = GoalOrientedQuestions(turns=3), GoalOrientedQuestions(turns=3, price_per_turn=0.1)
    rollouts = []
    for task in (free, dear):
        task.facts()
        rollouts.append(say(task, [3], [f"{RED} ... {LARGE} ... {ROUND} ..."]))
    assert rollouts[0].tokens.equal(rollouts[1].tokens)
    paid = rollouts[0].environment_reward.clone()
    paid[0, [3, 8, 13]] -= 0.1
    assert torch.allclose(paid, rollouts[1].environment_reward)
