"""A reward for short answers."""
