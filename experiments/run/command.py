"""``rhm fit``, ``check``, ``validate`` and ``test``: LightningCLI with one folder a run."""

from __future__ import annotations

import os
import sys
from typing import Any, ClassVar

import torch
import yaml
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from callbacks import EventFiles, HyperParameters, LayerwiseLinearProbe, RunProgress, StepLog
from callbacks.checkpoint_files import Saved
from datamodules import ReplicaDataModule
from experiments.classes import building, check_classes
from experiments.commands import COMMANDS
from experiments.run import limits, ranks
from experiments.run.checkpoints import StepCheckpoint, newest_readable
from experiments.run.compiling import CompiledStep, compiles
from experiments.run.contract import show_contract
from experiments.run.earlier import RUN
from experiments.run.fit import Fit, probe_of
from experiments.run.folder import RunFolder
from experiments.run.kept import kept_from_files
from experiments.run.pace import steps_per_call
from experiments.run.requeue import StopOnSignal
from experiments.run.results import RunRecord, collect_results
from experiments.run.spread import (
    START_SECONDS,
    Place,
    check_folders,
    find_place,
    place_of,
    stand_alone,
    start_ranks,
    wait_for_others,
)
from experiments.run.tables import replica_table, show
from experiments.settings import Parser, check_file, check_given, data_class, discover, say_task, with_data_help
from experiments.shipped import config_files
from experiments.terminal import quiet, wide_console
from rhm import InvalidInput
from rules import LocalRule


def run(command: str, args: list[str]) -> None:
    """Do a command of :data:`experiments.commands.RUN`.

    Raises:
        InvalidInput, ParsingError, ValueError: something is refused, see :func:`experiments.explain.in_one_line`.
        SystemExit: the run was stopped, or one of its ranks failed.
    """
    discover()
    quiet()
    ranks.end_with_parent()
    RunCommand(with_run_settings(command, args), only_check=command == "check")


class RunCommand(LightningCLI):
    """Reads the settings of a run, refuses what cannot be, builds all that it needs and does its command.

    Settings of a run: ``--data...``, ``--model...``, ``--trainer...``, ``--run_dir``, ``--checkpoint_every`` and
    ``--matmul_precision``.

    Args:
        args: the command and its settings.
        only_check: build everything and train nothing.
    """

    _parsers: ClassVar[dict[tuple[str, bool, str], dict[str, Any]]] = {}

    def __init__(self, args: list[str], only_check: bool = False):
        args = with_data_help(args)
        self.only_check, self.arguments = only_check, args
        check_classes(args)
        self.data_class = data_class(args)
        asked = {args[0]: self.subcommands()[args[0]]}
        self.__dict__["subcommands"] = lambda: asked  # a parser for each of the others would take as long as reading settings
        described = {name: COMMANDS["check" if only_check and name == "fit" else name].text for name in asked}
        super().__init__(
            LocalRule,
            ReplicaDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_class=Parser,
            parser_kwargs={"prog": "rhm", **{name: {"description": text} for name, text in described.items()}},
            trainer_defaults={
                "max_steps": 2000,
                "max_epochs": -1,
                "val_check_interval": 500,
                "check_val_every_n_epoch": None,
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,
                "use_distributed_sampler": False,
            },
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The trainer's methods that are commands."""
        skipped = LightningCLI.subcommands()
        return {name: skipped[name] | {"ckpt_path", "weights_only", "verbose"} for name in ("fit", "validate", "test")}

    def setup_parser(self, *args: Any) -> None:
        """Make a parser once for each command and kind of data: a study does many runs in one process."""
        key = self.arguments[0], self.only_check, self.data_class
        if key not in self._parsers:
            super().setup_parser(*args)
            made = "parser", "_subcommand_parsers", "_subcommand_method_arguments"
            self._parsers[key] = {name: vars(self)[name] for name in made}
        vars(self).update(self._parsers[key])

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What a run has beside model, data and trainer."""
        parser.add_argument("--run_dir", type=str | None, default=None, help="the run's folder; runs/RULE-DATE by default")
        parser.add_argument("--checkpoint_every", type=int, default=RUN["checkpoint_every"], help="steps between checkpoints")
        parser.add_argument(
            "--matmul_precision",
            type=str,
            default=RUN["matmul_precision"],
            help="of float32 on a GPU: highest, high (TF32) or medium",
        )
        parser.add_argument("--tables", type=bool, default=RUN["tables"], help="print accuracies and probes at the end")
        parser.add_argument(
            "--spread_replicas",
            type=bool,
            default=RUN["spread_replicas"],
            help="each of trainer.devices ranks trains a share of the replicas",
        )
        parser.add_argument(
            "--steps_per_call",
            type=int | None,
            default=RUN["steps_per_call"],
            help="steps between two looks of the trainer; null: as many as logs, validations and checkpoints allow",
        )
        parser.add_argument(
            "--compile",
            type=bool | None,
            default=RUN["compile"],
            help="compile the step (torch.compile), the same up to rounding; null: where a run is long enough to win it back",
        )
        if self.only_check:
            parser.add_argument(
                "--contract", action="store_true", help="try the rule's contract on few strings, and say what is found"
            )
        parser.set_defaults({"data": {"class_path": self.data_class}})

    # ---------------------------------------------------------------- before training

    def instantiate_classes(self) -> None:
        """Build rule, data and trainer."""
        with building():
            super().instantiate_classes()

    def before_instantiate_classes(self) -> None:
        """Refuse what can be refused before anything is built."""
        seed = self._get(self.config, "seed_everything")
        if seed is not False and seed is not None:
            raise InvalidInput(
                "seed_everything", seed, "data.seeds=[...] instead: grammars, strings and weights follow it alone"
            )
        trainer = self._get(self.config, "trainer")
        matmul = self._get(self.config, "matmul_precision")
        limits.check_settings(trainer, self._get(self.config, "checkpoint_every"), matmul)
        torch.set_float32_matmul_precision(matmul)
        run_dir = self._get(self.config, "run_dir")
        if run_dir is None:
            run_dir = ranks.default_run_dir(self._get(self.config, "model").class_path.rsplit(".", 1)[-1])
        os.environ[ranks.FOLDER] = run_dir
        self.folder = RunFolder(run_dir)
        assert self.subcommand is not None
        self.contract = bool(self.config[self.subcommand].pop("contract", False))
        say_task(self._get(self.config, "data"), self.arguments)
        self.config_yaml = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_unset=False)
        self.settings = yaml.safe_load(self.config_yaml)
        limits.check_finite(self.settings)
        check_given(self.settings)
        other, kept = kept_from_files(self.arguments, self.settings["model"])
        if kept:
            rule = self.settings["model"]["class_path"].rpartition(".")[2]
            ranks.say(f"rhm: note: {rule} keeps, from a file for {other}: {', '.join(kept)}")
        spread = self.subcommand == "fit" and self._get(self.config, "spread_replicas")
        self._check_folder(find_place() if spread else None)
        self.place: Place | None = None if self.subcommand == "fit" else place_of(self.folder.path)
        if spread:
            self._spread(trainer)

    def _check_folder(self, place: Place | None) -> None:
        """See that the command may be done in the folder, by a rank that has this place."""
        if self.subcommand != "fit":
            self.folder.check_measured(self.settings)
        elif place is not None and RunFolder(place.folder(self.folder.path)).done(self.settings["trainer"]["max_steps"]):
            self.folder.check_settings(self.settings)  # the others may have put all together meanwhile
        else:
            self.folder.check(self.settings)

    def _spread(self, trainer: Any) -> None:
        """Give this rank a folder of its own and let it train by itself; without a launcher, get ready to start the ranks."""
        started, gpus = find_place(), torch.cuda.device_count() if trainer.accelerator in ("auto", "gpu", "cuda") else 0
        world = started.world if started else (gpus or 1) if trainer.devices == "auto" else trainer.devices
        if not str(world).isdigit() or int(world) < 1:
            raise InvalidInput("trainer.devices", world, "a number of ranks with spread_replicas")
        check_folders(self.folder.path, int(world))
        self.place = started or Place(0, 0, int(world))
        self.starts_ranks = started is None and not self.only_check
        self.all_ranks = self.folder
        trainer.strategy, trainer.devices = "auto", [self.place.local_rank % gpus] if gpus and started else 1
        trainer.num_nodes = 1
        if started:
            stand_alone()
            self.folder = RunFolder(started.folder(self.all_ranks.path))
            if started.rank > 0:
                trainer.enable_progress_bar = False

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the callbacks and the logger that every run has; a callback given in the settings takes its place."""
        assert isinstance(self.datamodule, ReplicaDataModule)
        if self.place is not None:
            self.datamodule.keep_share(self.place.rank, self.place.world)
        limits.check_memory(self.model, self.datamodule, self._get(self.config, "trainer"))
        self.model.prepare(self.datamodule)  # refuses here what does not fit, before anything is written
        limits.check_optimizer(self.model)
        trains, chosen = self.subcommand == "fit" and not self.only_check, self._get(self.config, "trainer")
        if not trains:
            kwargs["logger"] = False
        elif chosen.logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(self.folder.path.parent, name=self.folder.path.name, version="")
        kwargs["callbacks"] = self._callbacks(trains, chosen.enable_progress_bar is not False)
        if trains:
            paces = {"trainer.val_check_interval": chosen.val_check_interval, "checkpoint_every": self.stop.checkpoint.every}
            wanted = self._get(self.config, "steps_per_call")
            steps = steps_per_call(wanted, self.model, self.datamodule, paces, kwargs["callbacks"])
            self.model.steps_per_call, kwargs["val_check_interval"] = steps, chosen.val_check_interval // steps
        kwargs["default_root_dir"] = str(self.folder.path)
        kwargs["enable_progress_bar"] = any(isinstance(c, ProgressBar) for c in kwargs["callbacks"])
        kwargs["enable_checkpointing"] = trains
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
            raise InvalidInput("trainer", error, "what `rhm fit --help` lists under trainer") from error
        limits.check_trainer(trainer, kwargs["callbacks"], self.model, self.datamodule, self.place is not None)
        wanted = self._get(self.config, "compile") if trains else False
        if compiles(wanted, self.model, self.datamodule, trainer.max_steps, trainer):
            vars(trainer)["callbacks"].append(CompiledStep(asked=bool(wanted)))
        return trainer

    def _callbacks(self, trains: bool, progress: bool) -> list[Callback]:
        """Those of the settings, then those that every run has and the settings have not."""
        given = self._get(self.config_init, "trainer").callbacks or []
        given = given if isinstance(given, list) else [given]
        self.record = RunRecord(self.folder)
        own: list[Callback] = [LayerwiseLinearProbe(), self.record]
        if trains:
            checkpoint = StepCheckpoint(self.folder.checkpoints, self._get(self.config, "checkpoint_every"))
            self.stop = StopOnSignal(checkpoint)
            own += [EventFiles(), StepLog(), HyperParameters(), checkpoint, self.stop]
            own += [RunProgress()] if progress and not any(isinstance(c, ProgressBar) for c in given) else []
        return [*given, *(callback for callback in own if not any(isinstance(other, type(callback)) for other in given))]

    def _run_subcommand(self, subcommand: str) -> None:
        if not self.only_check:
            super()._run_subcommand(subcommand)
        elif self.contract:
            show_contract(self.settings)

    # ---------------------------------------------------------------- the commands

    def fit(self, model: LocalRule, datamodule: ReplicaDataModule) -> None:
        """Train, from the last checkpoint if there is one, then test and keep the results."""
        if self.place is None:
            self._fit(model, datamodule)
            return
        steps, seconds = self.settings["trainer"]["max_steps"], 0
        self.all_ranks.make(self.settings, self.config_yaml)
        if self.starts_ranks:
            rhm = [sys.executable, "-P", "-m", "rhm"]
            command = [*rhm, *self.arguments, f"--run_dir={self.all_ranks.path}", "--tables=false"]
            if not start_ranks(command, self.all_ranks.path, self.place.world):
                return  # they have said how the run goes on
        else:
            if not self.folder.done(steps):
                self._fit(model, datamodule)
            seconds = START_SECONDS if self.folder.done(steps) else 0
        results = wait_for_others(self.all_ranks.path, self.place.world, steps, seconds)
        if results is not None and self._get(self.config, "tables"):
            wide_console().print(replica_table(results))
            print(f"results in {self.all_ranks.results}")

    def _fit(self, model: LocalRule, datamodule: ReplicaDataModule) -> None:
        Fit(
            self.trainer,
            model,
            datamodule,
            self.folder,
            self.settings,
            self.config_yaml,
            self.stop,
            self.record,
            shared=self.place is not None,
            tables=self._get(self.config, "tables"),
        ).run()

    def validate(self, model: LocalRule, datamodule: ReplicaDataModule) -> None:
        """Measure a run's last checkpoint; nothing is written."""
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=self._checkpoint().path, verbose=False)
        self._show(model, datamodule)

    def test(self, model: LocalRule, datamodule: ReplicaDataModule) -> None:
        """The same as validate, with logistic probes."""
        self.trainer.test(model, datamodule=datamodule, ckpt_path=self._checkpoint().path, verbose=False)
        self._show(model, datamodule)

    def _checkpoint(self) -> Saved:
        last = newest_readable(self.folder.checkpoints, self.model)
        assert last is not None  # see RunFolder.check_measured
        return last

    def _show(self, model: LocalRule, datamodule: ReplicaDataModule) -> None:
        results = collect_results(self.trainer, model, "finished", 0.0)
        if self.trainer.is_global_zero:
            show(results, probe_of(self.trainer), datamodule)


def with_run_settings(command: str, args: list[str]) -> list[str]:
    """Arguments for LightningCLI: ``check`` is a fit that stops early; validate and test take a run's own settings.

    Raises:
        InvalidInput: a file or folder that cannot be read as settings.
    """
    for file in config_files(args):
        check_file(file)
    subcommand = "fit" if command == "check" else command
    if subcommand != "fit" and not any(a.split("=")[0] in ("-c", "--config") for a in args):
        for place, argument in enumerate(args):
            if argument == "--run_dir" or argument.startswith("--run_dir="):
                run_dir = argument.partition("=")[2] or (args[place + 1] if place + 1 < len(args) else "")
                config = RunFolder(run_dir).config
                if not run_dir or not config.exists():
                    raise InvalidInput("run_dir", run_dir or "nothing", "a folder with a run's config.yaml")
                return [subcommand, "--config", str(config), *args]
    return [subcommand, *args]
