"""Prompts whose answers somebody ranked: for preference models, direct optimisation and what is fine-tuned by them."""
