"""The page on which people say which answer is best, and the small server behind it (`lrl label`)."""

LOCAL = ("127.0.0.1", "localhost", "::1")
"""Names that this machine has for itself."""
LONGEST_NAME = 80
"""Letters of a labeller's name."""
