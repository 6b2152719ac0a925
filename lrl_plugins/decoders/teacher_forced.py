"""Episodes that begin with part of the human answer, less of it from stage to stage: the rollouts of MIXER."""

from lrl_core.interfaces import Decoder, Environment, Policy
from lrl_core.types import Prompts, Rollout
from lrl_plugins.decoders.limits import StepwiseDecoder
from lrl_plugins.decoders.sample import Sample


class TeacherForced(Decoder):
    """Draws episodes whose first tokens are those of the prompt's human answer (MIXER, Ranzato 2016, algorithm 1).

    The forced tokens are no actions: they teach nothing by reward (a CrossEntropy objective on the human answers does
    that). How many there are depends on the epoch alone, counted within the phase: start - step for every
    `epochs_per_stage` epochs that have passed, but at least `stop`. An answer that is forced to its end, end token
    included, is a whole episode without an action.

    Args:
        decoder: Draws the rest; Sample or another decoder that is a rule for the next token. None: Sample with its
            defaults.
        start: Forced tokens in the first stage; normally the length of the longest answer, less one step.
        step: By how many tokens each stage forces less.
        epochs_per_stage: Epochs of a stage.
        stop: Forced tokens that remain in the end.
    """

    draws = True

    def __init__(
        self, decoder: Decoder | None = None, start: int = 17, step: int = 3, epochs_per_stage: int = 5, stop: int = 0
    ) -> None:
        super().__init__()
        inner = decoder or Sample()
        if not isinstance(inner, StepwiseDecoder) or not inner.draws:
            raise ValueError(
                f"TeacherForced: got the decoder {type(inner).__name__}; expected one that draws token by token. Use "
                "Sample."
            )
        if inner.constraints.opening:
            raise ValueError(
                f"TeacherForced: its decoder forces the opening {inner.constraints.opening!r} already; expected none, "
                "because the human answer is the opening. Leave it out."
            )
        if not (start >= stop >= 0 and step >= 0 and epochs_per_stage >= 1):
            raise ValueError(
                f"TeacherForced: got start {start}, step {step}, epochs_per_stage {epochs_per_stage}, stop {stop}; "
                "expected start >= stop >= 0, step >= 0 and epochs_per_stage >= 1."
            )
        self.decoder, self.samples = inner, inner.samples
        self.start, self.step, self.epochs_per_stage, self.stop = start, step, epochs_per_stage, stop
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        self.forced = max(self.stop, self.start - self.step * (epoch // self.epochs_per_stage))

    def greedy(self) -> Decoder:
        return self.decoder.greedy()

    def decode(self, policy: Policy, prompts: Prompts, environment: Environment | None = None) -> Rollout:
        openings = self._openings(prompts) if self.forced else None
        return self.decoder.play(policy, prompts, self.decoder.choose, environment, openings)

    def _openings(self, prompts: Prompts) -> list[list[int]]:
        if prompts.targets is None or prompts.target_lengths is None:
            raise ValueError(
                "TeacherForced: got prompts without a human answer; expected Prompts.targets, whose first "
                f"{self.forced} tokens begin each episode. Use a task that has answers, or Sample."
            )
        answers = zip(prompts.targets.tolist(), prompts.target_lengths.tolist(), strict=True)
        openings = [answer[: min(self.forced, length)] for answer, length in answers]
        return [opening for opening in openings for _ in range(self.samples)]
