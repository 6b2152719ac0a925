"""How good answers of the text tasks are: numbers of a whole corpus, in Python, in seconds."""

import random
from collections import defaultdict
from fractions import Fraction

import torch

from lrl_core.metrics.answers import answered_number
from lrl_core.metrics.bleu import corpus_bleu
from lrl_core.metrics.cider import cider_d
from lrl_core.metrics.diversity import distinct_n, self_bleu
from lrl_core.metrics.embeddings import embedding_diversity
from lrl_core.metrics.mauve import mauve
from lrl_core.metrics.ngrams import ngrams_of
from lrl_core.metrics.rouge import rouge_l, rouge_l_overlap, rouge_n
from lrl_core.tokenizer import words
from lrl_plugins.sentence_encoder import SentenceEncoder
from lrl_plugins.tasks.corpus import Answers, Corpus, SampledCorpus, mean
from lrl_plugins.tasks.text.slots import slot_coverage
from lrl_plugins.tasks.text.sources import Example

Sentences = list[list[str]]

MAUVE_SEEDS = 5
"""Seeds of k-means that MAUVE is the mean over."""


class SummaryMetrics(Corpus):
    """ROUGE_1, ROUGE_2 and ROUGE_L as F1 of the best reference (Lin 2004), and the mean length in words.

    Each summary is one sentence; the words are those of `lrl_core.tokenizer.words`, not stemmed.
    """

    def _scores(self, rows: Answers) -> dict[str, float]:
        scores = defaultdict(list)
        for said, own in rows.values():
            for name, score in rouge_f1(words(said), [words(text) for text in own]).items():
                scores[name].append(score)
        return {**{name: mean(own) for name, own in scores.items()}, "words": _length(rows)}


def rouge_f1(candidate: list[str], references: Sentences) -> dict[str, float]:
    """ROUGE_1, ROUGE_2 and ROUGE_L F1 of one candidate, each of the reference that gives most.

    Args:
        candidate: Its words.
        references: The words of its references, at least one.
    """
    scores = {
        f"ROUGE_{n}": max(rouge_n(ngrams_of(candidate, n), ngrams_of(text, n)).f1 for text in references)
        for n in (1, 2)
    }
    return {**scores, "ROUGE_L": max(rouge_l_overlap(candidate, text).f1 for text in references)}


class ParaphraseMetrics(Corpus):
    """BLEU_4 against the references, self_BLEU_4 against the prompt, and iBLEU, which is high where they differ.

    iBLEU = alpha BLEU - (1 - alpha) self-BLEU (Sun and Zhou 2012), all of the corpus; saying the prompt again has a
    self_BLEU_4 of 1.

    Args:
        examples: The split by id, for its prompts.
        alpha: Weight of agreement with the references.
    """

    def __init__(self, examples: dict[str, Example], alpha: float = 0.8) -> None:
        super().__init__()
        self.examples, self.alpha = examples, alpha

    def _scores(self, rows: Answers) -> dict[str, float]:
        candidates, references = _tokenised(rows)
        prompts = [[words(self.examples[name].prompt)] for name in rows]
        bleu = corpus_bleu(candidates, references)[-1]
        own = corpus_bleu(candidates, prompts)[-1]
        return {"BLEU_4": bleu, "self_BLEU_4": own, "iBLEU": self.alpha * bleu - (1 - self.alpha) * own}


class DataToTextMetrics(Corpus):
    """BLEU_4, ROUGE_L and CIDErD of the corpus, and slot_coverage: the share of slot values that are mentioned.

    A prompt's slots are what it says as `name[value]`; a prompt without any has no coverage.

    Args:
        examples: The split by id, for its prompts.
    """

    def __init__(self, examples: dict[str, Example]) -> None:
        super().__init__()
        self.examples = examples

    def _scores(self, rows: Answers) -> dict[str, float]:
        candidates, references = _tokenised(rows)
        pairs = zip(candidates, references, strict=True)
        scores = {
            "BLEU_4": corpus_bleu(candidates, references)[-1],
            "ROUGE_L": mean([rouge_l(candidate, own) for candidate, own in pairs]),
            "CIDErD": mean(cider_d(candidates, references)),
        }
        coverage = [slot_coverage(self.examples[name].prompt, said) for name, (said, _) in rows.items()]
        known = [share for share in coverage if share is not None]
        return scores | ({"slot_coverage": mean(known)} if known else {})


class ContinuationMetrics(SampledCorpus):
    """How varied continuations are: distinct_1 to distinct_3, repetition_4 and self_BLEU_4; BLEU_2, diversity, MAUVE.

    distinct_n is the share of distinct n-grams in the whole corpus (Li et al. 2016); it falls with the size of the
    corpus, so only corpora of one size compare. repetition_4 is the share of a continuation's 4-grams that repeat an
    earlier one of its own (Welleck et al. 2020). self_BLEU_4 is the mean BLEU-4 of continuations against each other
    (Zhu et al. 2018). BLEU_2 is that of the corpus with the human continuations, where there are any. Of several
    continuations of one prompt these take the first; diversity is 1 - the mean cosine of two of them, over prompts
    (Hu et al. 2024, arXiv 2310.04363, section 4.1). MAUVE is that of first continuations and human ones, both as
    words in lower case without punctuation.

    Args:
        human: Whether the same numbers of the human continuations are given too, as human_distinct_1 and so on, and
            MAUVE, which compares with them.
        sampled: How many continuations self_BLEU_4 compares, at most.
        encoder: What diversity and MAUVE read texts with; None leaves them out.
    """

    needs_references = False

    def __init__(self, human: bool = False, sampled: int = 200, encoder: SentenceEncoder | None = None) -> None:
        super().__init__()
        self.human, self.sampled, self.encoder = human, sampled, encoder

    def _scores(self, rows: Answers) -> dict[str, float]:
        scores = self._variety([words(said) for said, _ in rows.values()])
        known = {name: row for name, row in rows.items() if row[1]}
        if known:
            scores["BLEU_2"] = corpus_bleu(*_tokenised(known), n=2)[-1]
        if self.human and known:
            people = [words(own[0]) for _, own in known.values()]
            scores |= {f"human_{name}": score for name, score in self._variety(people).items()}
        if self.human and self.encoder is not None and len(known) > 1:
            scores["MAUVE"] = self._mauve(self.encoder, known)
        return scores

    def _mauve(self, encoder: SentenceEncoder, rows: Answers) -> float:
        """The mean over seeds of k-means, which alone decides the second digit."""
        # Words alone, as for the other numbers: punctuation that a vocabulary lacks would tell all texts apart.
        sides = [said for said, _ in rows.values()], [own[0] for _, own in rows.values()]
        plain = ([" ".join(words(text)) for text in side] for side in sides)
        said, people = (encoder.sentences(side, self.device).numpy() for side in plain)
        return mean([mauve(people, said, seed=25 + i) for i in range(MAUVE_SEEDS)])

    def _sample_scores(self, samples: dict[str, list[str]]) -> dict[str, float]:
        return sample_diversity(samples, self.encoder, self.device)

    def _variety(self, sentences: Sentences) -> dict[str, float]:
        scores = {f"distinct_{n}": distinct_n(sentences, n) for n in (1, 2, 3)}
        own = [distinct_n([sentence], 4) for sentence in sentences]
        repeated = [1 - share for share in own if share is not None]
        some = random.Random(0).sample(sentences, min(self.sampled, len(sentences)))
        if repeated:
            scores["repetition_4"] = mean(repeated)
        if len(some) > 1:
            scores["self_BLEU_4"] = mean(self_bleu(some))
        return {**{name: score for name, score in scores.items() if score is not None}, "words": mean_length(sentences)}


def sample_diversity(
    samples: dict[str, list[str]], encoder: SentenceEncoder | None, device: torch.device
) -> dict[str, float]:
    """`diversity`: 1 - the mean cosine of two answers to one prompt, over prompts; nothing where there are no two.

    Args:
        samples: The answers to each prompt, as many to each.
        encoder: What reads them; None = not measured.
        device: Where it computes.
    """
    each = min(map(len, samples.values()))
    if encoder is None or each < 2:
        return {}
    vectors = encoder.sentences([text for own in samples.values() for text in own], device)
    return {"diversity": mean([embedding_diversity(own) for own in vectors.split(each)])}


class ArithmeticMetrics(Corpus):
    """accuracy: the share of answers whose final number is right; answered: the share that have a number at all.

    Where the examples have a column `operands`, accuracy is also given by how many there are. The right number is
    the final one of the column `answer`, or of the first reference where there is no such column.

    Args:
        examples: The split by id.
        marker: What announces the final number.
    """

    needs_references = False

    def __init__(self, examples: dict[str, Example], marker: str = "####") -> None:
        super().__init__()
        self.examples, self.marker = examples, marker

    def _scores(self, rows: Answers) -> dict[str, float]:
        given = {name: final_number(said, self.marker) for name, (said, _) in rows.items()}
        right = {name: float(number is not None and number == self._answer(name)) for name, number in given.items()}
        groups = defaultdict(list)
        for name, hit in right.items():
            groups[self.examples[name].columns.get("operands")].append(hit)
        by_operands = {f"accuracy_{k}_operands": mean(hits) for k, hits in sorted(groups.items(), key=str) if k}
        answered = mean([float(number is not None) for number in given.values()])
        return {"accuracy": mean(list(right.values())), "answered": answered, **by_operands}

    def _answer(self, name: str) -> Fraction:
        example = self.examples[name]
        text = str(example.columns.get("answer", next(iter(example.references), "")))
        number = final_number(text, self.marker)
        if number is None:
            raise ValueError(
                f"ArithmeticMetrics got {text!r} as the right answer of {name!r}; expected a number in the column "
                "`answer` or in its first reference. Correct the data."
            )
        return number


def final_number(text: str, marker: str) -> Fraction | None:
    """The number after the marker, or the last one of a text without it; None where there is none."""
    return answered_number(text, marker if marker in text else None)


def mean_length(sentences: Sentences) -> float:
    """Words per sentence."""
    return mean([float(len(sentence)) for sentence in sentences])


def _length(rows: Answers) -> float:
    return mean_length([words(said) for said, _ in rows.values()])


def _tokenised(rows: Answers) -> tuple[Sentences, list[Sentences]]:
    return [words(said) for said, _ in rows.values()], [[words(text) for text in own] for _, own in rows.values()]
