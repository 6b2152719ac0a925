"""Questions made of episodes, and pictures for people to look at."""

import io
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from lrl_core.preferences.reading import prompt_text
from lrl_core.testing.toy import ToyTokenizer
from lrl_core.types import Prompts, Rollout
from lrl_plugins.callbacks.candidates import as_bytes, picture_of, questions_of

TOKENIZER = ToyTokenizer(6, eos=5)


def rollout(texts, groups, **prompts):
    count = len(texts)
    asked = Prompts(
        tokens=torch.tensor([[group, 1, 0] for group in groups]),
        lengths=torch.full((count,), 2),
        group=torch.tensor(groups),
    )
    lines = torch.zeros(count, 2, dtype=torch.long)
    return Rollout(
        prompts=replace(asked, **prompts),
        tokens=lines,
        lengths=torch.full((count,), 2),
        action_mask=torch.ones_like(lines, dtype=torch.bool),
        logprobs=torch.zeros(count, 2),
        terminated=torch.ones(count, dtype=torch.bool),
        texts=tuple(texts),
    )


def test_one_question_per_prompt_with_its_different_answers():
    drawn = rollout(["x", "y", "x", "z", "u", "v", "w", "u"], [3, 3, 3, 3, 2, 2, 2, 2])
    first, second = questions_of(drawn, TOKENIZER, count=9, candidates=4)
    assert (first.prompt, first.texts, first.rows) == ("db", ("x", "y", "z"), (0, 1, 3))
    assert (second.prompt, second.texts, second.rows) == ("cb", ("u", "v", "w"), (4, 5, 6))


def test_prompts_with_equal_answers_ask_nothing_and_count_as_nothing():
    drawn = rollout(["x", "x", "y", "z", "u", "v"], [0, 0, 1, 1, 2, 2])
    assert [question.texts for question in questions_of(drawn, TOKENIZER, count=1, candidates=2)] == [("y", "z")]


def test_only_the_first_candidates_of_a_prompt_are_shown():
    drawn = rollout(["x", "y", "z"], [0, 0, 0])
    assert questions_of(drawn, TOKENIZER, count=1, candidates=2)[0].texts == ("x", "y")


def test_the_prompt_is_the_datas_own_text_where_it_has_one():
    drawn = rollout(["x", "y"], [0, 0], examples=({"prompt": "Say it!"}, {"id": "1"}))
    assert [prompt_text(drawn.prompts, row, TOKENIZER) for row in (0, 1)] == ["Say it!", "ab"]


def test_the_key_tells_runs_steps_prompts_and_answers_apart():
    one, other = questions_of(rollout(["x", "y", "y", "x"], [0, 0, 1, 1]), TOKENIZER, count=2, candidates=2)
    keys = {one.key(1, 5), one.key(2, 5), one.key(1, 6), other.key(1, 5)}
    assert len(keys) == 4
    assert one.key(1, 5) == questions_of(rollout(["x", "y"], [0, 0]), TOKENIZER, 1, 2)[0].key(1, 5)


def test_pictures_come_back_from_the_png():
    levels = torch.arange(3 * 4 * 5, dtype=torch.uint8).view(3, 4, 5) * 4
    normalised = (levels.float() / 255 - 0.5) / 0.5
    drawn = rollout(["x", "y"], [0, 0], features={"pixels": torch.stack([normalised, normalised])})
    read = np.array(Image.open(io.BytesIO(picture_of(drawn.prompts, 1))))
    assert torch.from_numpy(read).permute(2, 0, 1).equal(levels)
    assert picture_of(rollout(["x", "y"], [0, 0]).prompts, 0) is None


def test_levels_of_bytes_shares_and_other_scales():
    shares = torch.tensor([0.0, 0.2, 1.0]).expand(3, 1, 3)
    assert as_bytes(shares)[0, 0].tolist() == [0, 51, 255]
    assert as_bytes(shares * 4 - 2)[0, 0].tolist() == [0, 51, 255]  # wider than [-1, 1]: stretched
    assert as_bytes(torch.tensor([7, 9], dtype=torch.uint8).expand(3, 1, 2)).tolist() == [[[7, 9]]] * 3
