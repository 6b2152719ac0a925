"""Text metrics as pure functions over tokenised sentences: what rewards, validation and tests share."""
