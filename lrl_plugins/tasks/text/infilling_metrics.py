"""How near written middles of stories come to the human ones."""

from lrl_core.metrics.bleu import corpus_bleu
from lrl_core.metrics.gleu import corpus_gleu
from lrl_core.tokenizer import words
from lrl_plugins.sentence_encoder import SentenceEncoder
from lrl_plugins.tasks.corpus import Answers, SampledCorpus, mean
from lrl_plugins.tasks.text.metrics import mean_length, sample_diversity


class InfillingMetrics(SampledCorpus):
    """BLEU_4 and GLEU_4 of the corpus, words, the mean length, and with an encoder BERTScore and diversity.

    BERTScore is the mean F1 (Zhang et al. 2020), of the encoder's last layer. Of several answers to one prompt these
    take the first; diversity is 1 - the mean cosine of two of them, over prompts.

    Args:
        encoder: What reads texts; None leaves BERTScore and diversity out.
    """

    def __init__(self, encoder: SentenceEncoder | None = None) -> None:
        super().__init__()
        self.encoder = encoder

    def _scores(self, rows: Answers) -> dict[str, float]:
        said, known = [said for said, _ in rows.values()], [own for _, own in rows.values()]
        candidates, references = [words(text) for text in said], [[words(text) for text in own] for own in known]
        scores = {
            "BLEU_4": corpus_bleu(candidates, references)[-1],
            "GLEU_4": corpus_gleu(candidates, references),
            "words": mean_length(candidates),
        }
        if self.encoder is not None:
            scores["BERTScore"] = mean(self.encoder.matched(said, known, self.device))
        return scores

    def _sample_scores(self, samples: dict[str, list[str]]) -> dict[str, float]:
        return sample_diversity(samples, self.encoder, self.device)
