from lrl_plugins.rewards.texts import END, tokenised


def test_the_end_token_is_no_word():
    assert tokenised(f"a cat {END} {END.upper()}", ended=False) == ["a", "cat"]
    assert tokenised("A cat.", ended=True) == ["a", "cat", END]
    assert tokenised("A cat.", ended=False) == ["a", "cat"]
