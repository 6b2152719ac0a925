"""Random draws as a function of seed, rank and step."""

import hashlib
import random

import numpy as np
import torch


def seed_step(seed: int, rank: int, step: int) -> None:
    """Seed Python, NumPy and torch for one training step: other ranks and other steps get unrelated streams."""
    digest = hashlib.blake2b(f"{seed}:{rank}:{step}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little")
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number % 2**63)
