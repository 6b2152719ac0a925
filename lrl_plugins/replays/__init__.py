"""Built-in replays."""
