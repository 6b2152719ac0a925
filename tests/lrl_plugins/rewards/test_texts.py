from lrl_core.tokenizer import words
from lrl_plugins.rewards.texts import END, tokenised


def test_the_end_token_is_no_word():
    assert END not in words(f"a cat {END}")
    assert tokenised("A cat.", ended=True) == ["a", "cat", END]
    assert tokenised("A cat.", ended=False) == ["a", "cat"]
