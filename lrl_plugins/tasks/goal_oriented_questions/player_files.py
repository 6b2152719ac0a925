"""What learned players know words and objects by, and the files that their weights are kept in."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from lrl_plugins.tasks.goal_oriented_questions.networks import GuesserNetwork, OracleNetwork, Sizes
from lrl_plugins.tasks.goal_oriented_questions.tokens import DialogueTokenizer
from lrl_plugins.tasks.goal_oriented_questions.worlds import Game, World

Network = TypeVar("Network", OracleNetwork, GuesserNetwork)
