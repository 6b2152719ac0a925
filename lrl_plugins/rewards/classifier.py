"""What a text classifier says of an answer."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from lrl_core.frozen import Frozen
from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.registry import suggest
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards import pretrained
from lrl_plugins.rewards.prompt_texts import prompt_texts
from lrl_plugins.rewards.texts import texts_of

Output = Literal["probability", "log_probability", "logit"]


class Classifier(Reward):
    """What a frozen sequence classifier says of a label: sentiment, toxicity, grammar, or a published preference model.

    The model reads the text with its own tokenizer, so it need not share the policy's. Its labels exclude each other
    (softmax), unless it has a single one or is a multi-label model (sigmoid).

    Args:
        model: Folder or hub name of a transformers sequence classifier.
        label: Name of the label as the model's config has it, or its index.
        output: probability in [0, 1], its natural logarithm, or the bare logit, which is what a preference model with
            one output means.
        prompt: Whether the prompt's text is read before the answer. A text too long for the model loses its beginning.
        separator: Stands between prompt and answer; None gives them to the tokenizer as a pair of texts.
        batch_size: Most texts read at once; fewer of unlike length, and of long ones.
        max_length: Longest input in the model's tokens; None takes the model's limit.
    """

    def __init__(
        self,
        model: str,
        label: int | str = 0,
        output: Output = "probability",
        prompt: bool = False,
        separator: str | None = " ",
        batch_size: int = 32,
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        pretrained.check_batch_size("Classifier", batch_size)
        if output not in get_args(Output):
            expected = ", ".join(get_args(Output))
            raise ValueError(f"Classifier: output is {output!r}; expected one of {expected}. Correct the recipe.")
        self.name, self.label, self.output, self.prompt = model, label, output, prompt
        self.separator, self.batch_size, self.max_length = separator, batch_size, max_length
        self.classifier: Frozen | None = None

    def bind(self, facts: TaskFacts) -> None:
        """Load the model and find the label."""
        config = pretrained.load_config("Classifier", self.name)
        self._index = label_index(self.label, config.id2label, self.name)
        self._exclusive = config.num_labels > 1 and config.problem_type != "multi_label_classification"
        reader = pretrained.TextReader("Classifier", self.name, config, self.max_length, keep_end=self.prompt)
        model = pretrained.load_model("Classifier", AutoModelForSequenceClassification, self.name, config)
        # Decoder-only models judge at the last token that is no padding. Where none is named, any stand-in might be a
        # text's own last token, so there is none, and only texts of one length are read together.
        self._padless = getattr(config, "pad_token_id", None) is None
        if self._padless:
            model.config.pad_token_id = -1
        self._reader, self.classifier = reader, Frozen(model)
        self._tokenizer: Tokenizer = facts.tokenizer

    @torch.no_grad()
    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where the model's tokenizer sees no token."""
        if self.classifier is None:
            raise pretrained.unbound("Classifier")
        rows, device = self._rows(rollout), pretrained.device_of(self.classifier)
        total = torch.full((len(rollout),), torch.nan, device=rollout.tokens.device)
        for places, batch in pretrained.buckets(rows, self.batch_size, device, equal=self._padless):
            inputs = self._reader.batch(batch, device)
            scores = label_scores(self.classifier.module(**inputs).logits, self._index, self.output, self._exclusive)
            total[places] = scores.to(total)
        return RewardSignal(total, parts={"Classifier": total})

    def _rows(self, rollout: Rollout) -> list[pretrained.Row]:
        texts = list(texts_of(self, rollout))
        if not self.prompt:
            return self._reader.rows(texts)
        prompts = prompt_texts(rollout, self._tokenizer)
        if self.separator is None:
            return self._reader.rows(prompts, texts)
        return self._reader.rows([self.separator.join(two) for two in zip(prompts, texts, strict=True)])


def label_scores(logits: Tensor, index: int, output: Output, exclusive: bool) -> Tensor:
    """What the logits [N K] say of one label, [N].

    Args:
        logits: One per text and label.
        index: Which label.
        output: Probability, its logarithm, or the logit itself.
        exclusive: Whether exactly one label holds (softmax), or each by itself (sigmoid).
    """
    logits = logits.float()
    if output == "logit":
        return logits[:, index]
    logs = logits.log_softmax(-1) if exclusive else torch.nn.functional.logsigmoid(logits)
    return logs[:, index] if output == "log_probability" else logs[:, index].exp()


def label_index(label: int | str, labels: dict[int, str], model: Any) -> int:
    """The index of a label given by name or by index.

    Args:
        label: As the recipe says it.
        labels: Index -> name, from the model's config.
        model: Name of the model, for the message.
    """
    by_name = {name: index for index, name in labels.items()}
    if label in by_name:
        return by_name[str(label)]
    index = int(label) if str(label).isdigit() else -1
    if index in labels:
        return index
    raise ValueError(
        f"Classifier: label is {label!r}; expected one of {', '.join(map(repr, by_name))} or an index below "
        f"{len(labels)}, as {model!r} has them. {suggest(str(label), by_name)}Correct the recipe."
    )
