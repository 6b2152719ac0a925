import pytest

from lrl_core.tokenizer import WordTokenizer
from lrl_plugins.tasks.text.bpe import BytePairTokenizer
from lrl_plugins.tasks.text.layout import Layout
from lrl_plugins.tasks.text.sources import Example

LONG = Example("1", "one two three four five", (), {"topic": "numbers"})
WORDS = WordTokenizer.from_texts(["one two three four five numbers short say"])


def worded(layout, example=LONG, tokenizer=WORDS):
    return tokenizer.decode(layout.tokens(example, tokenizer))


@pytest.mark.parametrize(
    ("template", "length", "side", "expected"),
    [
        ("{prompt}", 5, "right", "one two three four five"),
        ("{prompt}", 3, "right", "one two three"),
        ("{prompt}", 3, "left", "three four five"),
        ("say: {prompt} short", 4, "right", "say one two short"),
        ("{topic}: {prompt}", 3, "left", "numbers four five"),
        ("{topic}: {prompt}", 1, "left", "numbers"),
    ],
)
def test_templates_stay_and_prompts_lose_words(template, length, side, expected):
    assert worded(Layout(template, length, side)) == expected


def test_scripts_without_spaces_lose_letters():
    tokenizer = BytePairTokenizer(["一二三四五六七八九十"], 64)
    assert len(Layout("{prompt}", 7, "right").tokens(Example("1", "一二三四五六七八九十" * 3, ()), tokenizer)) <= 7


@pytest.mark.parametrize("template", ["{absent}", "{0}", "{prompt", "}"])
def test_templates_that_do_not_fit_are_refused(template):
    with pytest.raises(ValueError, match=r"template: got .*example 1.*expected \{prompt\} or columns.*topic, prompt"):
        Layout(template, 5, "right").fill(LONG, "x")


def test_braces_of_the_prompt_are_text():
    assert Layout("{{{prompt}}}", 5, "right").fill(LONG, "{a} {0}") == "{{a} {0}}"


def test_templates_longer_than_the_limit_are_refused():
    with pytest.raises(ValueError, match=r"template: got 'say short \{prompt\}', which has 2 tokens of its own"):
        Layout("say short {prompt}", 1, "right").tokens(LONG, WORDS)
