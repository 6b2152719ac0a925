"""Simultaneous translation: a policy that reads the source word by word and writes when it dares."""
