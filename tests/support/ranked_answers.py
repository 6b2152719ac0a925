"""Batches of ranked answers, and what stands for a training run: for the tests of models of preferences."""

from types import SimpleNamespace

import torch

from lrl_core.interfaces import TaskFacts, bind_all
from lrl_core.masks import length_mask
from lrl_core.preferences.comparison import Comparison
from lrl_core.sampling import Sampling
from lrl_core.tokenizer import WordTokenizer
from lrl_core.types import Experience, Prompts, Rollout

BERT = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 32,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
SENTENCES = (
    "the garden is lovely today",
    "what a kind and clever story",
    "the soup was quite good",
    "it is a door",
    "the train came a bit late",
    "a dull and tired song",
    "the worst cold rain ever",
    "this broken thing is awful",
)
WORTH = tuple(2.0 - 0.6 * place for place in range(len(SENTENCES)))
PROMPT = "say something nice"
TOKENIZER = WordTokenizer.from_texts([*SENTENCES, PROMPT])


def noisy(count, size=2, seed=0):
    """Comparisons of sentences, ranked by noisy worth: of two, the better wins with probability sigma(difference)."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        chosen = torch.randperm(len(SENTENCES), generator=generator)[:size].tolist()
        noise = -torch.empty(size).exponential_(generator=generator).log()  # Gumbel: the Plackett-Luce model
        felt = torch.tensor([WORTH[i] for i in chosen]) + noise
        ranks = felt.argsort(descending=True).argsort().tolist()
        made.append(Comparison(PROMPT, tuple(SENTENCES[i] for i in chosen), tuple(ranks), f"{number}/1"))
    return made


def lines(texts):
    """Ids of texts, padded, and their lengths."""
    ids = [TOKENIZER.encode(text) for text in texts]
    lengths = torch.tensor([len(line) for line in ids])
    return torch.tensor([line + [0] * (int(lengths.max()) - len(line)) for line in ids]), lengths


def prompts_of(comparisons):
    """A batch as a task of ranked answers makes it: one row per candidate."""
    rows = [
        (i, item, text, rank)
        for i, item in enumerate(comparisons)
        for text, rank in zip(item.candidates, item.ranks, strict=True)
    ]
    tokens, lengths = lines([item.prompt for _, item, _, _ in rows])
    targets, target_lengths = lines([text for _, _, text, _ in rows])
    return Prompts(
        tokens=tokens,
        lengths=lengths,
        group=torch.tensor([i for i, *_ in rows]),
        references=tuple((text,) for _, _, text, _ in rows),
        targets=targets,
        target_lengths=target_lengths,
        features={"rank": torch.tensor([rank for *_, rank in rows])},
        examples=tuple({"id": item.id, "prompt": item.prompt, "candidate": text} for _, item, text, _ in rows),
    )


def rollout_of(texts, prompt=PROMPT):
    """Episodes that say these texts."""
    tokens, lengths = lines(texts)
    asked, asked_lengths = lines([prompt] * len(texts))
    mask = length_mask(lengths, tokens.shape[1])
    return Rollout(
        prompts=Prompts(asked, asked_lengths, torch.zeros(len(texts), dtype=torch.long)),
        tokens=tokens,
        lengths=lengths,
        action_mask=mask,
        logprobs=torch.zeros(tokens.shape),
        terminated=torch.ones(len(texts), dtype=torch.bool),
        sampling=Sampling(),
        texts=tuple(texts),
    )


FACTS = TaskFacts(tokenizer=TOKENIZER, references=(), example=prompts_of(noisy(2)))


def bound(learner, seed=0):
    """The learner with its weights drawn."""
    torch.manual_seed(seed)
    bind_all(learner, FACTS)
    return learner.train()


def batch_of(comparisons):
    """What a learner trained alone is given."""
    return Experience(expert=Rollout.of_targets(prompts_of(comparisons)))


def update(learner, lesson, optimizer, parts=None):
    """One optimiser step, as the training step makes it."""
    optimizer.zero_grad()
    for part in lesson.split(parts):
        loss = learner.learn(part)
        (loss.total / learner.count(lesson).clamp(min=1)).backward()
    optimizer.step()
    return loss


def optimiser_of(learner, lr):
    return torch.optim.Adam([parameter for parameter in learner.parameters() if parameter.requires_grad], lr=lr)


def beside(step, holding=False):
    """The parts of a recipe, as far as a model of preferences asks."""
    return SimpleNamespace(step=step, holding=holding)


def weights(learner):
    return torch.cat([parameter.detach().flatten() for parameter in learner.parameters()])
