"""`lrl fit | validate | test | predict`: LightningCLI with plugin names, recipe names and run folders."""

import logging
import signal
import warnings
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, set_parsing_settings
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lrl_core import precision, run_folder
from lrl_core.commands import CommandError, errors, mentions, naming, recipes
from lrl_core.interfaces import ChecksRecipe, Sampler, Task, TaskFacts
from lrl_core.registry import PluginError

_DESCRIPTIONS = {
    "fit": "Train by a recipe.",
    "validate": "Measure on the validation data.",
    "test": "Measure on the test data.",
    "predict": "Answer the prompts of the prediction data.",
}
_BLAMELESS = (ValueError, NotImplementedError, ImportError, OSError, PluginError, MisconfigurationException)
"""Errors by which parts say that the recipe is wrong; any other is a defect and keeps its traceback."""
_CONFIG_OPTIONS = ("--config", "-c")
_QUIET = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*treespec, LeafSpec.*",
    ".*`tensorboardX` has been removed.*",
    ".*in eval mode at the start of training.*",
)


def main(arguments: list[str], model_class: type[LightningModule] | None = None) -> int:
    """Run one of the training commands; the result is the exit code.

    Args:
        arguments: The command and its options.
        model_class: What is trained; None for what the recipe asks for.
    """
    keep_quiet()
    arguments, configs = prepare(arguments)
    model_class = model_class or _model_class(arguments, configs)
    try:
        build_cli(model_class, arguments, configs)
    except SIGTERMException:  # a SystemExit without a code: a queue would take the stopped run for a finished one
        return 128 + signal.SIGTERM
    return 0


def _model_class(arguments: list[str], configs: list[Path]) -> type[LightningModule]:
    """A recipe whose model names a learner trains it alone; any other trains a policy."""
    named = any("learner" in (mentions.read_yaml(path).get("model") or {}) for path in configs)
    if named or any(argument.startswith("--model.learner=") or argument == "--model.learner" for argument in arguments):
        from lrl_core.alone import LearnerAlone

        return LearnerAlone
    from lrl_core.module import PolicyGradient

    return PolicyGradient


def prepare(arguments: list[str]) -> tuple[list[str], list[Path]]:
    """Resolve recipe names to files and import the plugins that they and the options name."""
    arguments, configs = _resolve_configs(arguments)
    if configs and not _whole(configs):
        raise CommandError(
            f"--config: got nothing but presets ({', '.join(path.stem for path in configs)}), which are parts of a "
            f"recipe. Name the recipe first: lrl {arguments[0]} --config RECIPE --config presets/{configs[0].stem}."
        )
    found = [mention for path in configs for mention in mentions.in_config(path)]
    naming.import_named([*found, *mentions.in_arguments(arguments)])
    return arguments, configs


def build_cli(model_class: type[LightningModule], arguments: list[str], configs: list[Path]) -> "RecipeCLI":
    """Parse, build and run.

    Args:
        model_class: What is trained.
        arguments: The command and its options, recipe names resolved.
        configs: The recipe files among them, for the name of the run folder.
    """
    # The facts come from the data: without this every tensor in them would be an option of its own.
    set_parsing_settings(subclasses_enabled=[TaskFacts])
    name = run_folder.run_name(_whole(configs)[-1] if configs else None, recipes.folder())
    return RecipeCLI(name, model_class, arguments)


class RecipeCLI(LightningCLI):
    """LightningCLI whose data is a task by name, whose task binds the model, and whose run has a folder of its own.

    Args:
        run_name: Name of the folder under runs/.
        model_class: What is trained.
        arguments: The command and its options.
    """

    def __init__(self, run_name: str, model_class: type[LightningModule], arguments: list[str]) -> None:
        self.run_name = run_name
        self.command = arguments[0]
        description = f"{_DESCRIPTIONS[self.command]} Names of parts: `lrl plugins`; recipes: `lrl recipes`."
        super().__init__(
            model_class,
            Task,
            subclass_mode_data=True,
            save_config_kwargs={"overwrite": True},  # the folder is this run's own, or the user chose it
            seed_everything_default=1,
            parser_kwargs={
                "prog": "lrl",
                "exit_on_error": False,
                self.command: {"description": description, "exit_on_error": False},
            },
            args=arguments,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one command that was asked for: building the parser of all four takes seconds."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add `--run_dir` and hand the task's facts to the model."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder of this run, new or empty; None: runs/<recipe>/version_<k>.",
        )
        parser.link_arguments("data", "model.task", compute_fn=task_facts, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the resolved arguments; sys.argv stays as it is for the processes that a strategy launches."""
        try:
            assert isinstance(args, list)
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise CommandError(errors.parsing(error, f"lrl {self.command}")) from error

    def before_instantiate_classes(self) -> None:
        """Look for the checkpoint before weights and data are loaded."""
        path = self.config[self.command]["ckpt_path"]
        special = path is None or str(path).startswith(("best", "last", "hpc", "registry")) or "://" in str(path)
        if not special and not Path(path).exists():
            raise CommandError(f"--ckpt_path: there is no {path}; expected a checkpoint, as in runs/*/*/checkpoints/.")

    def before_fit(self) -> None:
        """Say in which precision the run computes, and why."""
        chosen, device = str(self.trainer.precision), self.trainer.strategy.root_device
        units = precision.has_bf16(device)
        rank_zero_info(precision.reason(chosen, device.type, units))
        if precision.is_emulated(chosen, units):
            rank_zero_warn(precision.warning(chosen, device.type))

    def before_predict(self) -> None:
        """Leave the answers to the callbacks that write them, batch by batch, instead of keeping them all in memory."""
        self.config_init["predict"]["return_predictions"] = False

    def instantiate_classes(self) -> None:
        """Build task, model and trainer; what the recipe got wrong becomes a readable error."""
        try:
            super().instantiate_classes()
            self._let_callbacks_check()
        except _BLAMELESS as error:
            raise CommandError(errors.building(error)) from error

    def _let_callbacks_check(self) -> None:
        if self.command != "fit" or not isinstance(self.model, Sampler):
            return
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ChecksRecipe):
                callback.check_recipe(self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give the trainer a CSV logger in the run folder unless the recipe chooses a logger."""
        chosen = self.config[self.command]
        if chosen["trainer"]["logger"] in (None, True) and not chosen["trainer"]["fast_dev_run"]:
            kwargs["logger"] = self._csv_logger(chosen["run_dir"])
        return super().instantiate_trainer(**kwargs)

    def _csv_logger(self, run_dir: str | None) -> CSVLogger:
        folder = run_folder.take(Path(run_dir)) if run_dir else run_folder.claim(Path("runs"), self.run_name)
        rank_zero_info(f"Run folder: {folder}")
        # A number makes the progress bar's v_num readable; both give this very folder.
        version = folder.name if run_dir else int(folder.name.removeprefix("version_"))
        return CSVLogger(folder.parent, name="", version=version)


def task_facts(data: Task) -> TaskFacts:
    """What the task tells the model."""
    return data.facts()


def _whole(configs: list[Path]) -> list[Path]:
    """The recipes among the config files: all but presets."""
    presets = {path for name, path in recipes.shipped().items() if recipes.is_preset(name)}
    return [path for path in configs if path not in presets]


def _resolve_configs(arguments: list[str]) -> tuple[list[str], list[Path]]:
    """Replace recipe names after --config by files."""
    resolved: list[str] = []
    configs: list[Path] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if resolved and resolved[-1] in _CONFIG_OPTIONS:
            configs.append(recipes.resolve(argument))
            resolved.append(str(configs[-1]))
        elif equals and option in _CONFIG_OPTIONS:
            configs.append(recipes.resolve(value))
            resolved.append(f"{option}={configs[-1]}")
        else:
            resolved.append(argument)
    return resolved, configs


def keep_quiet() -> None:
    """Silence advertisements and remarks that ask nothing of the user."""
    for message in _QUIET:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_no_advertisement)


def _no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
