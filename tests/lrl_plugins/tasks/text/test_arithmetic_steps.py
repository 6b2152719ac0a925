import gzip
import json
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from lrl_core.interfaces import bind_all
from lrl_core.reports import texts_of
from lrl_core.testing.toy import TablePolicy
from lrl_plugins.decoders.limits import Constraints
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.tasks.text.arithmetic_steps import ArithmeticFiles, ArithmeticSteps, WorkedSums
from lrl_plugins.tasks.text.calculator import Calculator
from lrl_plugins.tasks.text.number_tokenizer import NumberTokenizer

DATA = Path(__file__).resolve().parents[4] / ".." / "shared" / "data" / "gfn_arithmetic"
WORDS = NumberTokenizer()


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def published(name):
    path = DATA / f"{name}.json.gz"
    if not path.exists():
        pytest.skip(f"{path.name} of gfn-lm-tuning is not here")
    return str(path)


# The vocabulary


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("6 - 0 = 6, 6 - 8 = -2", "6 - 0 = 6 , 6 - 8 = -2"),
        ("-3 + 4 =", "-3 + 4 ="),
        ("6-4", "6 - 4"),
        ("6 -4", "6 - 4"),
        ("6 - -4", "6 - -4"),
        (". The answer is -6.", ". the answer is -6 ."),
        ("Question: 1 + 2 = ? Answer:", "question : 1 + 2 = ? answer :"),
        ("- 4", "- 4"),
        ("007 -", "7 -"),
        ("what 100", "<unk> <unk>"),
    ],
)
def test_a_number_is_one_token_with_its_sign(text, pieces):
    assert WORDS.decode(WORDS.encode(text)) == pieces
    assert len(WORDS.encode(text)) == len(pieces.split())


def test_numbers_and_tokens_are_each_other_s_inverse():
    assert [WORDS.number(WORDS.of_number(n)) for n in range(-99, 100)] == list(range(-99, 100))
    assert WORDS.of_number(100) is WORDS.of_number(-100) is None
    assert [WORDS.number(WORDS.id(sign)) for sign in WORDS.SIGNS] == [None] * len(WORDS.SIGNS)


# The calculator


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("6 - 8 =", "-2"),
        ("9 + 4 = 13 , 13 - 8 =", "5"),
        ("-3 + 4 =", "1"),
        ("3 + 4 - 5 =", "-1"),  # the last two operands
        ("98 + 1 =", "99"),
        ("98 + 2 =", ""),  # no token for it
        ("=", ""),
        ("6 =", ""),
        ("- 8 =", ""),
        ("6 , 8 =", ""),
        ("6 + - =", ""),
        ("9 + 4 , 8 =", ""),
        ("6 - 8", ""),  # not asked
    ],
)
def test_the_calculator_says_the_result_or_nothing(line, reply):
    said = Calculator(WORDS).reply([], WORDS.encode(line))
    assert WORDS.decode(said.tokens) == reply
    assert (said.reward, said.done) == (0.0, False)


def test_it_remembers_the_line_over_several_turns():
    calculator = Calculator(WORDS)
    (state,) = calculator.start(ArithmeticSteps().facts().example.select(torch.tensor([0])))
    assert calculator.reply(state, WORDS.encode("6 =")).tokens == ()
    assert WORDS.decode(calculator.reply(state, WORDS.encode("+ 1 =")).tokens) == ""  # "= + 1 =" is no expression
    assert WORDS.decode(calculator.reply(state, WORDS.encode(", 6 + 1 =")).tokens) == "7"
    assert WORDS.decode(calculator.reply(state, WORDS.encode("- 2 =")).tokens) == "5"  # goes on from its own word
    assert calculator.reply(state, [WORDS.eos]).tokens == ()


class Parrot(TablePolicy):
    """Says one line again and again."""

    def __init__(self, line):
        table = torch.full((1 + len(WORDS), len(WORDS)), -30.0)
        super().__init__(table, eos=WORDS.eos)
        ids = [WORDS.bos, *WORDS.encode(line), WORDS.eos]
        with torch.no_grad():
            self.table[0, ids[1]] = 30.0
            for before, after in pairwise(ids[1:]):
                self.table[1 + before, after] = 30.0


def played(line, max_length=20, **options):
    task = ArithmeticSteps(WorkedSums(train=4, val=2, test=2))
    facts = task.facts()
    decoder = Sample(max_length=max_length, constraints=Constraints(**options))
    bind_all(decoder, facts)
    rollout = decoder.decode(Parrot(line), facts.example, facts.environment)
    return rollout, texts_of(rollout, facts.tokenizer, facts.environment)


def test_the_calculator_s_words_stand_in_the_line_and_are_never_chosen():
    # The policy says "7 - 9 =", then, behind -2, "+ 1 =", and behind -1 the end: every token says what comes next.
    policy = Parrot("7 - 9 =")
    with torch.no_grad():
        for before, after in ((-2, "+"), (1, "="), (-1, "<eos>")):
            policy.table[1 + WORDS.of_number(before)] = -30.0
            policy.table[1 + WORDS.of_number(before), WORDS.pieces.index(after)] = 30.0
        policy.table[1 + WORDS.id("+"), WORDS.of_number(1)] = 30.0
    task = ArithmeticSteps(WorkedSums(train=4, val=2, test=2))
    facts = task.facts()
    decoder = Sample(max_length=20)
    bind_all(decoder, facts)
    rollout = decoder.decode(policy, facts.example, facts.environment)
    assert texts_of(rollout, WORDS, facts.environment) == ("7 - 9 = -2 + 1 = -1",) * 2
    said = [WORDS.pieces[token] for token in rollout.tokens[0][~rollout.action_mask[0]].tolist()]
    assert said == ["-2", "-1"]
    assert rollout.logprobs[~rollout.action_mask].eq(0).all()
    assert rollout.terminated.all()


def test_at_the_limit_the_end_token_comes_unless_the_calculator_has_the_last_word():
    # "7 - 9 =" takes four tokens, its result the fifth, and then the parrot has nothing to say but the end
    rollout, texts = played("7 - 9 =", max_length=4, end_at_limit=True)
    assert texts[0] == "7 - 9"
    assert rollout.terminated.all()
    rollout, texts = played("7 - 9 =", max_length=5, end_at_limit=True)
    assert texts[0] == "7 - 9 = -2"
    assert not rollout.terminated.any()
    assert rollout.action_mask[0].tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("written", ["6 - 0 = 6, 6 - 4 = 2", "6 - 0 =, 6 - 4 ="])
def test_worked_lines_are_laid_with_the_calculator_s_words_in_them(written):
    laid = Calculator(WORDS).lay(WORDS.encode(written))
    assert WORDS.decode(laid.tokens) == "6 - 0 = 6 , 6 - 4 = 2"
    assert [WORDS.pieces[token] for token, own in zip(laid.tokens, laid.own, strict=True) if not own] == ["6", "2"]
    assert Calculator(WORDS).lay(laid.tokens) == laid


# Sources


def steps_of(text):
    return [re.fullmatch(r"(-?\d+) ([+-]) (\d) = (-?\d+)", step).groups() for step in text.split(" , ")]


def test_worked_sums_are_right_and_lead_to_the_answer():
    splits = WorkedSums(train=200, val=20, test=60).splits()
    assert {split: {e.columns["operands"] for e in own} for split, own in splits.items()} == {
        "train": {3, 4}, "val": {3, 4}, "test": {3, 4, 5},
    }  # fmt: skip
    everything = [example for own in splits.values() for example in own]
    assert len({example.prompt for example in everything}) == len(everything)
    for example in everything:
        steps = steps_of(example.references[0])
        asked = example.prompt.removesuffix(" = ?")
        assert len(re.findall(r"\d", asked)) == example.columns["operands"] == len(steps) + 1
        assert all(eval(f"{a} {sign} {b}") == int(result) for a, sign, b, result in steps)
        assert " ".join([steps[0][0], *(part for step in steps for part in step[1:3])]) == asked
        assert int(steps[-1][3]) == eval(asked) == int(example.columns["answer"])


def test_mistakes_are_as_frequent_as_asked_and_of_three_kinds():
    train = WorkedSums(train=1500, val=2, test=2, operands=(3,), mistakes=0.4).splits()["train"]
    clean = WorkedSums(train=1500, val=2, test=2, operands=(3,)).splits()["train"]
    assert [e.prompt for e in train] == [e.prompt for e in clean]
    right = sum(e.references == f.references for e, f in zip(train, clean, strict=True)) / 1500
    shorter = sum(len(steps_of(e.references[0])) == 1 for e in train) / 1500
    assert abs(right - (0.6 + 0.4 / 3 * 0.1) ** 2) < 0.05  # another operand is the same one in ten
    assert abs(shorter - (0.4 / 3 * 2 - (0.4 / 3) ** 2)) < 0.05
    assert all(eval(f"{a} {sign} {b}") == int(c) for e in train for a, sign, b, c in steps_of(e.references[0]))


def test_wrong_results_are_carried_on():
    train = WorkedSums(train=300, val=2, test=2, operands=(3,), wrong_results=1.0).splits()["train"]
    for example in train:
        (a, s, b, c), (d, t, e, f) = steps_of(example.references[0])
        assert 1 <= abs(eval(f"{a} {s} {b}") - int(c)) <= 3
        assert (d, 1 <= abs(eval(f"{d} {t} {e}") - int(f)) <= 3) == (c, True)


def write(folder, name, *rows):
    path = folder / name
    path.write_bytes(gzip.compress(json.dumps(list(rows)).encode()))
    return str(path)


def row(question, answer, **more):
    return {"str_query": f"Question: {question} = ? Answer:", "num_sol": answer, **more}


def test_files_are_read_and_questions_known_from_training_left_out(tmp_path):
    worked = row("6 - 0 - 4", 2, str_rationale="6 - 0 =, 6 - 4 =", str_sol=". The answer is 2.")
    train = write(tmp_path, "train.json.gz", worked)
    val = write(tmp_path, "val.json.gz", row("1 + 1 + 1", 3))
    test = write(tmp_path, "test.json.gz", row("6 - 0 - 4", 2), row("1 + 1 + 1", 3), row("9 + 9 + 9 + 9", 36))
    task = ArithmeticSteps(ArithmeticFiles(train, val, (test,)))
    (shown,) = task.examples["train"]
    assert (shown.prompt, shown.references) == ("6 - 0 - 4 = ?", ("6 - 0 = 6 , 6 - 4 = 2",))
    assert shown.columns == {"answer": "2", "operands": 3, "after": ". The answer is 2."}
    assert [(e.prompt, e.columns["answer"], e.references) for e in task.examples["test"]] == [
        ("9 + 9 + 9 + 9 = ?", "36", ())
    ]
    generated = WorkedSums(train=90, val=2, test=2, operands=(2,), test_operands=(2,), without=(test,), largest=9)
    assert "9 + 9" not in {e.prompt for e in generated.splits()["train"]}


def test_questions_of_files_are_not_asked(tmp_path):
    asked = [f"{a} {s} {b}" for a in range(2) for s in "+-" for b in range(2)]
    path = write(tmp_path, "held.json.gz", *(row(question, eval(question)) for question in asked[:4]))
    splits = WorkedSums(train=2, val=1, test=1, operands=(2,), test_operands=(2,), largest=1, without=(path,)).splits()
    found = {example.prompt for own in splits.values() for example in own}
    assert found == {f"{question} = ?" for question in asked[4:]}


@pytest.mark.parametrize("kind", ["arithmetic", "arithmetic_with_tool"])
def test_the_published_worked_sums(kind):
    tests = tuple(published(f"arithmetic_with_tool__1digit_{n}_op+-_test") for n in (3, 4, 5))
    task = ArithmeticSteps(ArithmeticFiles(published(f"{kind}__1digit_34_op+-_train_50"), test=tests))
    assert len(task.examples["train"]) + len(task.examples["val"]) == 50
    by_operands = [sum(e.columns["operands"] == n for e in task.examples["test"]) for n in (3, 4, 5)]
    assert by_operands == [483, 494, 500]  # 17 and 6 questions are training questions
    for example in task.examples["train"]:
        steps = steps_of(example.references[0])
        assert all(eval(f"{a} {sign} {b}") == int(c) for a, sign, b, c in steps)
        assert int(steps[-1][3]) == int(example.columns["answer"])
        assert WORDS.unk not in WORDS.encode(f"{example.prompt} {example.columns['after']}")


# The task


def test_the_calculator_s_words_in_human_answers_are_not_learnt():
    task = ArithmeticSteps(WorkedSums(train=30, val=2, test=2), taught="both", references_per_prompt=2, batch_size=30)
    prompts = next(iter(task.train_dataloader()))
    assert len(prompts) == 60
    lines = zip(prompts.targets, prompts.target_mask, prompts.target_lengths, prompts.examples, strict=True)
    for target, mask, length, example in lines:
        text = WORDS.decode(target[:length].tolist())
        said = [WORDS.number(token) for token in target[~mask].tolist()]
        assert said == [int(step[3]) for step in steps_of(text.partition(" .")[0])]
        assert len(said) == example["operands"] - 1
        assert mask[length - 1]
    assert sum(" . the answer is " in WORDS.decode(target.tolist()) for target in prompts.targets) == 30


def test_without_a_tool_every_word_is_one_s_own_and_wrong_results_are_allowed():
    task = ArithmeticSteps(WorkedSums(train=30, val=2, test=2, wrong_results=0.5), tool=False)
    assert task.facts().environment is None
    assert next(iter(task.train_dataloader())).target_mask is None


def test_wrong_results_are_no_calculator_s():
    with pytest.raises(ValueError, match="right results, because they are its words"):
        ArithmeticSteps(WorkedSums(train=30, val=2, test=2, wrong_results=0.5)).facts()


def test_the_answer_of_a_wrong_line_is_what_it_comes_to():
    task = ArithmeticSteps(WorkedSums(train=200, val=2, test=2, mistakes=0.5), taught="answer")
    wrong = 0
    for example in task.examples["train"]:
        steps, _, said = example.references[0].partition(" . The answer is ")
        assert said == f"{steps_of(steps)[-1][3]}."
        assert example.columns["after"] == f". The answer is {example.columns['answer']}."
        wrong += said != f"{example.columns['answer']}."
    assert wrong > 50


def test_accuracy_reads_the_last_number_and_tells_operands_apart():
    task = ArithmeticSteps(WorkedSums(train=2, val=2, test=40, test_operands=(3, 5)))
    metric = task.metrics("test")
    three, *others = [e for e in task.examples["test"] if e.columns["operands"] == 3][:3]
    (five,) = [e for e in task.examples["test"] if e.columns["operands"] == 5][:1]
    said = {
        three.id: f"1 + 1 = {three.columns['answer']}",
        others[0].id: f"1 - 1 = {int(others[0].columns['answer']) + 1}",
        others[1].id: "+ = ,",
        five.id: f"{five.columns['answer']} , 1 - 1 =",
    }
    metric.update(list(said), list(said.values()), [()] * 4)
    scores = {name: value.item() for name, value in metric.compute().items()}
    assert scores == pytest.approx(
        {"accuracy": 1 / 4, "answered": 3 / 4, "accuracy_3_operands": 1 / 3, "accuracy_5_operands": 0.0}
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operands": ()}, "expected numbers from 2 on"),
        ({"operands": (1, 3)}, "expected numbers from 2 on"),
        ({"mistakes": 1.5}, "mistakes 1.5, expected a chance"),
        ({"wrong_results": -0.1}, "wrong_results -0.1, expected a chance"),
    ],
)
def test_impossible_sums_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        WorkedSums(**arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", "which is no JSON"),
        (b"{}", "something else than a list of objects"),
        (b'[{"str_query": "1 + 1", "num_sol": 2}]', "a question that ends with"),
        (b'[{"str_query": "1 + 1 = ?"}]', "its result in num_sol"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path, content, message):
    path = tmp_path / "sums.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        ArithmeticFiles(str(path)).splits()


def test_lines_of_chance_never_stop_the_calculator():
    draw, calculator = random.Random(0), Calculator(WORDS)
    for _ in range(300):
        line = [draw.choice(draw.choice((range(4, len(WORDS)), (4, 5, 6, 7)))) for _ in range(12)]
        state = []
        for token in line:
            reply = calculator.reply(state, [token])
            assert all(WORDS.number(word) is not None for word in reply.tokens)
