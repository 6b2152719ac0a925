"""The language-modelling task: texts that are cut off, and how they go on."""

from typing import Literal

from torchmetrics import Metric

from lrl_plugins.sentence_encoder import SentenceEncoder
from lrl_plugins.tasks.text.hub import HubDataset
from lrl_plugins.tasks.text.made_up import MadeUpStories
from lrl_plugins.tasks.text.metrics import ContinuationMetrics
from lrl_plugins.tasks.text.plain import PlainText
from lrl_plugins.tasks.text.sources import Example, JsonLines, Parallel, TextSource
from lrl_plugins.tasks.text.stories import Stories
from lrl_plugins.tasks.text.task import Settings, TextTask

__all__ = [
    "HubDataset",
    "JsonLines",
    "LanguageModelling",
    "MadeUpStories",
    "Parallel",
    "PlainText",
    "Stories",
    "TextSource",
]


class LanguageModelling(TextTask):
    """Go on with a text. Without arguments: made-up tiny stories, nothing to download.

    Held-out metrics: distinct_1 to distinct_3, repetition_4, self_BLEU_4 and words, in the test also those of the
    human continuations, and BLEU_2 with these; the core adds their perplexity. With an encoder, the test adds MAUVE,
    and several answers to a prompt (evaluation_decoder with samples: k) their diversity.

    Every prompt is one of `batch_size` per step and rank, once per epoch.

    Args:
        source: Where prompts and answers come from: JsonLines, Parallel, HubDataset, PlainText, Stories, MadeUpStories
            or a class of your own; None = MadeUpStories().
        batch_size: Prompts per step and rank.
        references_per_prompt: Answers to learn from per prompt and epoch (fewer where a prompt has fewer); from epoch
            to epoch they take turns.
        template: Wording of the prompt: `{prompt}` and other columns of the row stand in braces.
        max_prompt_length: Longest prompt in tokens; words of longer ones are left out, those of the template stay.
        max_length: Longest target in tokens, EOS counted; longer answers are cut.
        truncation: Where a longer prompt loses words: right keeps its beginning, left its end.
        tokenizer: A folder with a transformers tokenizer or a .json written by WordTokenizer.save; None = made from the
            training texts.
        vocabulary: Ids of a byte-pair vocabulary trained on prompts and answers, where tokenizer is None; None = their
            words in lower case.
        min_count: Words that occur less often become <unk>; only where words are the vocabulary.
        seed: Of the order of prompts and answers, and of the mistakes.
        encoder: Folder or hub name of a sentence encoder, or of a language model, for diversity where a prompt has
            several answers, and in the test MAUVE; None leaves them out.
        backspace: Whether there is a token that takes the last one back (Cundy and Ermon 2023, arXiv 2306.05426);
            texts are then what is left in the end. The policy must be able to read such lines.
        noise: Chance, before each token of an answer to learn from, of a random wrong one that is taken back at once,
            other ones in each epoch: the wrong token is not learnt, the backspace is. max_length does not count them.
            Validation and test have none. It needs backspace; 0 for none.
    """

    def __init__(
        self,
        source: TextSource | None = None,
        batch_size: int = 16,
        references_per_prompt: int = 1,
        template: str = "{prompt}",
        max_prompt_length: int = 64,
        max_length: int = 32,
        truncation: Literal["left", "right"] = "left",
        tokenizer: str | None = None,
        vocabulary: int | None = None,
        min_count: int = 1,
        seed: int = 0,
        encoder: str | None = None,
        backspace: bool = False,
        noise: float = 0.0,
    ) -> None:
        settings = Settings(
            batch_size, references_per_prompt, template, max_prompt_length, max_length, truncation, tokenizer,
            vocabulary, min_count, seed, backspace, noise,
        )  # fmt: skip
        super().__init__(source if source is not None else MadeUpStories(), settings)
        self.encoder = None if encoder is None else SentenceEncoder("LanguageModelling", encoder)

    def measure(self, examples: dict[str, Example], test: bool) -> Metric:
        return ContinuationMetrics(human=test, encoder=self.encoder)
