"""Sentences that an LSTM with known weights writes, so that every generated sentence has an exact likelihood."""
