"""A reward that some server computes."""

import logging
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import torch

from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.registry import PluginError, origin
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.json_requests import Endpoint, RequestError
from lrl_plugins.rewards.prompt_texts import prompt_texts
from lrl_plugins.rewards.texts import texts_of
from lrl_plugins.rewards.values import as_rewards

Field = Literal["references", "prompts", "examples"]
_log = logging.getLogger(__name__)


class Remote(Reward):
    """Asks an HTTP endpoint: POST {"texts": [...]}, answered by {"rewards": [...]} with one number or null per text.

    Episodes are sent in batches, several at a time. A batch whose request failed (no answer in time, an error, no
    JSON, too few values) is NaN, with a line in the log: it is never recorded as 0. A null is NaN as well.

    Args:
        url: The endpoint, http:// or https://.
        send: What is sent besides the texts, one entry per text: references, prompts (as text), examples (the data's
            rows; they must be JSON).
        batch_size: Texts per request.
        workers: Requests that are under way at once.
        time_limit: Seconds until a request is given up.
        retries: How often a failed request is made again.
        pause: Seconds before the first retry; twice as long before each further one.
        token_variable: Environment variable whose value is sent as a bearer token, to keep it out of recipes and logs;
            None sends none.
        rowwise: Whether the server judges each text by itself; false where a score depends on the others.
    """

    concurrent = True

    def __init__(
        self,
        url: str,
        send: list[Field] | None = None,
        batch_size: int = 32,
        workers: int = 4,
        time_limit: float = 30.0,
        retries: int = 2,
        pause: float = 0.5,
        token_variable: str | None = None,
        rowwise: bool = True,
    ) -> None:
        super().__init__()
        _check(url, send or [], batch_size, workers, time_limit, retries, pause)
        self.url, self.send, self.batch_size, self.workers = url, tuple(send or ()), batch_size, workers
        self.time_limit, self.retries, self.pause = time_limit, retries, pause
        self.token_variable, self.rowwise = token_variable, rowwise
        _headers(token_variable)  # a missing variable is said when the recipe is read
        self._tokenizer: Tokenizer | None = None

    def bind(self, facts: TaskFacts) -> None:
        """Keep the tokenizer, to read prompts with."""
        self._tokenizer = facts.tokenizer

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where the server did not."""
        columns: dict[str, Sequence[Any]] = {"texts": texts_of(self, rollout)}
        columns |= {name: self._column(name, rollout) for name in self.send}
        starts = range(0, len(rollout), self.batch_size)
        bodies = [{name: list(c[i : i + self.batch_size]) for name, c in columns.items()} for i in starts]
        endpoint = Endpoint(self.url, self.time_limit, self.retries, self.pause, _headers(self.token_variable))
        with ThreadPoolExecutor(self.workers, thread_name_prefix="lrl-remote") as pool:
            answers = list(pool.map(lambda body: self._ask(endpoint, body), bodies))
        total = torch.tensor([value for answer in answers for value in answer], device=rollout.tokens.device)
        return RewardSignal(total.float(), parts={"Remote": total.float()})

    def _ask(self, endpoint: Endpoint, body: dict[str, list[Any]]) -> list[float]:
        """The rewards of one batch; NaN for all of it, and a line in the log, if that failed."""
        count = len(body["texts"])
        try:
            answer = endpoint.ask(body)
            if not isinstance(answer, dict) or "rewards" not in answer:
                raise RequestError(f"no 'rewards' in the answer {str(answer)[:60]!r}")
            return as_rewards("the server", answer["rewards"], count).tolist()
        except (RequestError, PluginError) as failure:
            parts = urlsplit(self.url)
            _log.warning(
                "Remote (%s): a request of %d texts to %s://%s%s failed: %s; they are not judged (NaN).",
                origin(type(self)), count, parts.scheme, parts.hostname, parts.path, failure,
            )  # fmt: skip
            return [math.nan] * count

    def _column(self, name: str, rollout: Rollout) -> Sequence[Any]:
        if name == "references":
            return [list(row or ()) for row in rollout.prompts.references or ((),) * len(rollout)]
        if name == "examples":
            return rollout.prompts.examples or ({},) * len(rollout)
        if self._tokenizer is None:
            raise PluginError(
                "Remote sends prompts, but bind(facts) was not called; expected the task's tokenizer, to read them "
                "with. The trainer binds every component; in a script, call bind yourself."
            )
        return prompt_texts(rollout, self._tokenizer)


def _headers(variable: str | None) -> dict[str, str]:
    if variable is None:
        return {}
    if not os.environ.get(variable):
        raise ValueError(
            f"Remote: token_variable is {variable!r}, which is not set; expected an environment variable with the "
            "token. Set it, or leave token_variable out."
        )
    return {"Authorization": f"Bearer {os.environ[variable]}"}


def _check(
    url: str, send: Sequence[str], batch_size: int, workers: int, time_limit: float, retries: int, pause: float
) -> None:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ValueError(f"Remote: url is {url!r}; expected http://host/path or https://host/path. Correct the recipe.")
    if any(name not in get_args(Field) for name in send):
        raise ValueError(f"Remote: send is {list(send)}; expected some of {', '.join(get_args(Field))}. Correct it.")
    if min(batch_size, workers) < 1 or time_limit <= 0 or min(retries, pause) < 0:
        raise ValueError(
            f"Remote: got batch_size {batch_size}, workers {workers}, time_limit {time_limit}, retries {retries} and "
            f"pause {pause}; expected batch_size and workers of at least 1, time_limit > 0, retries and pause >= 0. "
            "Correct the recipe."
        )
