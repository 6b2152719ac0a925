"""How questions are spelt: in lower case, split at spaces, the question mark a word of its own."""

END = "?"
"""Ends a question."""


def pieces(text: str) -> list[str]:
    """The words of a text, question marks among them."""
    return text.lower().replace(END, f" {END} ").split()


def worded(text: str) -> str:
    """The same question as a questioner says it: "Is it red?" becomes "is it red ?"."""
    return " ".join(pieces(text))
