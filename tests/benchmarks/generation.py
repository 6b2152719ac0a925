"""Generation alone, side by side in one process: transformers' generate against the decoders of lrl.

Both read the same weights and the same prompts and end each answer at the same random length (the end token is banned
before and certain then), so that the work is the same. `generate` gets each prompt once per sample, as trainers do.

    python tests/benchmarks/generation.py --data DATA

`--steps eager compiled` compares the two ways of lrl; on a GPU (`--device cuda`) the compiled one replays CUDA graphs.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import models_for_speed as shapes
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from lrl_core.interfaces import Decoder, Policy, State, TaskFacts
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_plugins.decoders.beam_search import BeamSearch
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.tasks.tokenizers import PretrainedTokenizer

NEVER = -1e9


def end_at(logits: Tensor, left: Tensor) -> Tensor:
    """Ban the end token, or leave nothing else where one token is left."""
    logits[:, shapes.EOS] = NEVER
    last = left == 1
    if logits.is_cuda or last.any():  # to ask a GPU would be to wait for it
        logits.masked_fill_(last[:, None], NEVER)
        logits[:, shapes.EOS].masked_fill_(last, 0.0)
    return logits


class ForceLengths(LogitsProcessor):
    """The same for transformers."""

    def __init__(self, lengths: Tensor, start: int, beams: int) -> None:
        self.lengths, self.start = lengths.repeat_interleave(beams), start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return end_at(scores, self.lengths - (input_ids.shape[1] - self.start))


class ForcedState(State):
    """A policy's state and how many tokens are left to each row."""

    def __init__(self, inner: State, left: Tensor | None, lengths: Tensor) -> None:
        self.inner, self.left, self.lengths = inner, left, lengths

    def select(self, rows: Tensor) -> State:
        left = self.lengths if self.left is None else self.left[rows]
        return ForcedState(self.inner.select(rows), left, self.lengths)


class Forced(Policy):
    """A policy whose answers end at given lengths."""

    def __init__(self, policy: Policy, lengths: Tensor) -> None:
        super().__init__()
        self.policy, self.lengths = policy, lengths

    def forward(self, rollout: Rollout) -> PolicyOutput:
        return self.policy(rollout)

    def begin(self, prompts: Prompts) -> tuple[Tensor, State]:
        logits, inner = self.policy.begin(prompts)
        logits[:, shapes.EOS] = NEVER  # no answer has one token
        return logits, ForcedState(inner, self.lengths if len(prompts) == len(self.lengths) else None, self.lengths)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        assert isinstance(state, ForcedState)
        assert state.left is not None
        logits, inner = self.policy.step(tokens, state.inner)
        left = state.left - 1
        return end_at(logits, left), ForcedState(inner, left, self.lengths)


def peer(model: Any, ids: Tensor, lengths: Tensor, mode: str) -> Tensor:
    start, beams = (1 if model.config.is_encoder_decoder else ids.shape[1]), 4 if mode == "beam 4" else 1
    processors = LogitsProcessorList([ForceLengths(lengths, start, beams)])
    made = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=int(lengths.max()),
        do_sample=mode == "sample",
        num_beams=beams,
        top_k=0,
        top_p=1.0,
        pad_token_id=shapes.PAD,
        eos_token_id=shapes.EOS,
        logits_processor=processors,
    )
    return made[:, start:]


def decoder_of(mode: str, longest: int, samples: int) -> Decoder:
    if mode == "sample":
        return Sample(max_length=longest, samples=samples)
    return Greedy(max_length=longest) if mode == "greedy" else BeamSearch(width=4, max_length=longest)


def interleaved(engines: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each; the first rounds warm up: kernels are made, CUDA graphs recorded."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 2):
        for name, run in engines.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number > 1:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in seconds.items()}


def compare(
    policies: dict[str, Policy], model: Any, facts: TaskFacts, ids: Tensor, mode: str, options: argparse.Namespace
) -> list[str]:
    """Lines of the table; `ids` are distinct prompts, of which sampling asks a share several times each.

    Args:
        policies: The same model read in each of the asked ways.
        model: What transformers reads.
        facts: Of the task.
        ids: Prompts.
        mode: How tokens are chosen.
        options: Of the command line.
    """
    rows = len(ids)
    samples = options.samples if mode == "sample" else 1
    asked = ids[: rows // samples]
    chance = random.Random(1)
    lengths = torch.tensor([chance.randint(options.low, options.high) for _ in range(rows)]).to(ids.device)
    size = torch.full((len(asked),), ids.shape[1]).to(ids.device)
    prompts = Prompts(asked, size, torch.arange(len(asked)).to(ids.device))
    decoder = decoder_of(mode, options.high, samples)
    decoder.bind(facts)

    def played(policy: Policy) -> Callable[[], Tensor]:
        return lambda: decoder.decode(Forced(policy, lengths).eval(), prompts).tokens

    engines = {"transformers": lambda: peer(model, asked.repeat_interleave(samples, 0), lengths, mode)}
    engines |= {steps: played(policy) for steps, policy in policies.items()}
    theirs = engines["transformers"]()
    seconds = interleaved(engines, options.rounds)
    return [
        f"| {type(model).__name__} | {mode} | {rows} | {steps} | {seconds['transformers']:.2f} | {seconds[steps]:.2f} "
        f"| {seconds['transformers'] / seconds[steps]:.2f} | {int(lengths.sum()) / seconds[steps]:.0f} "
        f"| {'drawn' if mode == 'sample' else f'{share_equal(theirs, engines[steps](), lengths):.0%}'} |"
        for steps in policies
    ]


def share_equal(theirs: Tensor, ours: Tensor, lengths: Tensor) -> float:
    """How many answers are the same."""
    width = min(theirs.shape[1], ours.shape[1])
    inside = torch.arange(width, device=lengths.device) < lengths[:, None]
    return float(((theirs[:, :width] == ours[:, :width]) | ~inside).all(1).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with multi30k_captions5")
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--modes", nargs="+", default=["sample", "greedy", "beam 4"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=4, help="answers to each prompt when sampling")
    parser.add_argument("--low", type=int, default=5, help="shortest answer")
    parser.add_argument("--high", type=int, default=64, help="longest answer")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", nargs="+", default=["eager"], choices=["eager", "compiled"], help="how lrl reads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| model | mode | rows | steps | generate, s | lrl, s | ratio | lrl, tokens/s | equal answers |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        words = shapes.save_tokenizer(options.data, Path(folder))
        tokenizer = PretrainedTokenizer(folder)
        texts = shapes.prompts(options.data, words, max(options.rows), 32)
        ids = torch.tensor(words(texts)["input_ids"])
        example = Prompts(ids[:2], torch.full((2,), 32), torch.arange(2))
        ids = ids.to(options.device)
        facts = TaskFacts(tokenizer=tokenizer, references=(), example=example)
        for model in (shapes.gpt2(options.layers, options.width, 0.0), shapes.marian(options.layers, options.width)):
            path = Path(folder) / type(model).__name__
            model.save_pretrained(path)
            policies: dict[str, Policy] = {}
            for steps in options.steps:
                policy: Policy = (
                    Seq2SeqLM(path=str(path), end_with_eos=False, steps=steps)
                    if model.config.is_encoder_decoder
                    else CausalLM(path=str(path), begin_with_bos=False, steps=steps)
                )
                policy.bind(facts)
                policies[steps] = policy.eval().to(options.device)
            model.to(options.device)
            for rows in options.rows:
                for mode in options.modes:
                    print(*compare(policies, model, facts, ids[:rows], mode, options), sep="\n", flush=True)


if __name__ == "__main__":
    main()
