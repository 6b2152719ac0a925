"""Guess a hidden object by asking questions about it."""
