"""The core: types, verbs, the episode loop and the training step."""
