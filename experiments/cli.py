"""The command line: ``rhm fit | sweep | report | validate | test | check | rules | describe | curves | search | ...``."""

from __future__ import annotations

import errno
import importlib
import inspect
import json
import logging
import math
import os
import pkgutil
import re
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from jsonargparse._deprecated import JsonargparseDeprecationWarning
from pytorch_lightning import Trainer
from pytorch_lightning.accelerators import AcceleratorRegistry
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import callbacks
import datamodules
import networks
import rules
from callbacks import Diagnostic, EventFiles, HyperParameters, LayerwiseLinearProbe, RunProgress, StepLog
from callbacks.figures import heat_map
from callbacks.find import callbacks_of
from datamodules import RHMDataModule
from experiments import ranks
from experiments.checkpoints import StepCheckpoint, newest_readable
from experiments.explain import RUN, explain
from experiments.launch import Launcher
from experiments.requeue import StopOnSignal, Stopped, requeue
from experiments.run_folder import RunFolder, RunRecord, collect_results, flatten
from experiments.spread import Place, check_folders, find_place, launch, place_of, put_together, stand_alone
from experiments.study import Study, study_settings
from experiments.sweep import sweep
from experiments.tables import Size, by_size, largest, probe_table, replica_table, size_name, wide_console
from rhm import InvalidInput
from rhm.errors import nearest
from rules import LocalRule

COMMANDS = {
    "fit": "train a rule, test it and keep the results in --run_dir",
    "sweep": "make all runs of a study: -c STUDY.yaml --run_dir=DIR [--quick] [--dry-run] [--retry] [--strict]",
    "report": "figures, tables and a page of a study: DIR",
    "validate": "measure accuracy and ridge probes of a run in --run_dir",
    "test": "measure accuracy, ridge and logistic probes of a run in --run_dir",
    "check": "build everything as fit would, train nothing, print only what is wrong",
    "rules": "list every learning rule: family, supervision, what it sees, source",
    "describe": "print what a task is: --v --n --m --s --L",
    "curves": "draw test accuracy against training-set size from the results of runs",
    "search": "try settings of a rule from a grid and write the best",
    "compare": "tune and train every rule on some tasks and tabulate them",
    "demo": "three rules on one task in a few minutes",
}
SETTINGS = ("data", "model", "trainer", "run_dir", "checkpoint_every", "matmul_precision", "tables", "spread_replicas")


def _whole(limit: float | None) -> bool:
    """Whether a limit on batches is none; of 1 the parser may make a share of 1.0 or one batch."""
    return limit is None


TRAINER_SETTINGS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_steps": (lambda x: x is not None and x >= 1, "an integer of at least 1: a run's length is counted in steps"),
    "max_epochs": (lambda x: x in (None, -1), "-1: a run's length is trainer.max_steps"),
    "val_check_interval": (lambda x: isinstance(x, int) and x >= 1, "an integer of at least 1, in steps"),
    "gradient_clip_val": (lambda x: x is None, "null; model.clip clips each layer"),
    "accumulate_grad_batches": (lambda x: x == 1, "1; use a larger data.batch_size"),
    "fast_dev_run": (lambda x: not x, "false; use `rhm check` or a small trainer.max_steps"),
    "overfit_batches": (lambda x: not x, "0; use a small data.train_size"),
    "limit_train_batches": (_whole, "null; use trainer.max_steps"),
    "limit_val_batches": (lambda x: x == 0 or _whole(x), "null, or 0 for no validation; use data.test_size"),
    "limit_test_batches": (_whole, "null; use data.test_size"),
}
"""Trainer settings that mean something else here: what is allowed, as a test and in words."""
PRECISIONS = ("32-true", "64-true", "bf16-mixed")
MATMUL_PRECISIONS = ("highest", "high", "medium")
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the file system says when there is no room."""


class Parser(LightningArgumentParser):
    """Raises what is wrong instead of printing usage."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Raise the message as one that :func:`main` can shorten."""
        raise ParsingError(message, [a.dest for a in self._actions])


class ParsingError(Exception):
    """What the argument parser found wrong, with the settings that it knows."""

    def __init__(self, message: str, options: list[str]):
        super().__init__(message)
        self.options = options


class RHMCommand(LightningCLI):
    """LightningCLI with one folder a run.

    Settings of a run: ``--data...``, ``--model...``, ``--trainer...``, ``--run_dir``, ``--checkpoint_every`` and
    ``--matmul_precision``.
    """

    def __init__(self, args: list[str], only_check: bool = False):
        self.only_check, self.arguments = only_check, args
        described = {name: COMMANDS["check" if only_check and name == "fit" else name] for name in self.subcommands()}
        super().__init__(
            LocalRule,
            RHMDataModule,
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

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What a run has beside model, data and trainer."""
        parser.add_argument("--run_dir", type=str | None, default=None, help="the run's folder; runs/RULE-DATE by default")
        parser.add_argument("--checkpoint_every", type=int, default=500, help="steps between checkpoints")
        parser.add_argument(
            "--matmul_precision", type=str, default="highest", help="of float32 on a GPU: highest, high (TF32) or medium"
        )
        parser.add_argument("--tables", type=bool, default=True, help="print accuracies and probes at the end")
        parser.add_argument(
            "--spread_replicas",
            type=bool,
            default=False,
            help="each of trainer.devices ranks trains a share of the replicas",
        )
        parser.set_defaults({"data": {"class_path": "datamodules.RHMDataModule"}})

    # ---------------------------------------------------------------- before training

    def before_instantiate_classes(self) -> None:
        """Refuse what can be refused before anything is built."""
        trainer = self._get(self.config, "trainer")
        if trainer is None:
            raise InvalidInput("trainer", None, "settings that `rhm fit --help` lists under trainer")
        precision = str(trainer.precision or "32-true")
        precision = {"32": "32-true", "64": "64-true"}.get(precision, precision)
        if precision not in PRECISIONS:
            raise InvalidInput(
                "trainer.precision", precision, f"one of {', '.join(PRECISIONS)}; hand-made gradients are not scaled"
            )
        usable = accelerators()
        if isinstance(trainer.accelerator, str) and trainer.accelerator not in usable:
            raise InvalidInput("trainer.accelerator", trainer.accelerator, f"{' or '.join(usable)}; this machine has no other")
        for key, (fits, allowed) in TRAINER_SETTINGS.items():
            if not fits(value := trainer[key]):
                raise InvalidInput(f"trainer.{key}", value, allowed)
        every = self._get(self.config, "checkpoint_every")
        if every is None or every < 1:
            raise InvalidInput("checkpoint_every", every, "an integer of at least 1")
        matmul = self._get(self.config, "matmul_precision")
        if matmul not in MATMUL_PRECISIONS:
            raise InvalidInput("matmul_precision", matmul, f"one of {', '.join(MATMUL_PRECISIONS)}")
        torch.set_float32_matmul_precision(matmul)
        run_dir = self._get(self.config, "run_dir")
        if run_dir is None:
            run_dir = ranks.default_run_dir(self._get(self.config, "model").class_path.rsplit(".", 1)[-1])
        os.environ[ranks.FOLDER] = run_dir
        self.folder = RunFolder(run_dir)
        assert self.subcommand is not None
        self.config_yaml = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_unset=False)
        self.settings = yaml.safe_load(self.config_yaml)
        for key, value in flatten(self.settings).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InvalidInput(key.replace(".init_args", ""), value, "a finite number")
        if self.subcommand == "fit":
            place = find_place() if self._get(self.config, "spread_replicas") else None
            if place is not None and RunFolder(place.folder(self.folder.path)).finished:
                self.folder.check_settings(self.settings)  # the others may have put all together meanwhile
            else:
                self.folder.check(self.settings)
        else:
            self.folder.check_measured(self.settings)
        self.place: Place | None = None if self.subcommand == "fit" else place_of(self.folder.path)
        if self.subcommand == "fit" and self._get(self.config, "spread_replicas"):
            self._spread(trainer)

    def _spread(self, trainer: Any) -> None:
        """Give this rank a folder of its own and let it train by itself; without a launcher, get ready to start the ranks."""
        started, gpus = find_place(), torch.cuda.device_count() if trainer.accelerator in ("auto", "gpu", "cuda") else 0
        world = started.world if started else (gpus or 1) if trainer.devices == "auto" else trainer.devices
        if not str(world).isdigit() or int(world) < 1:
            raise InvalidInput("trainer.devices", world, "a number of ranks with spread_replicas")
        check_folders(self.folder.path, int(world))
        self.place = started or Place(0, 0, int(world))
        self.launches = started is None and not self.only_check
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
        assert isinstance(self.datamodule, RHMDataModule)
        if self.place is not None:
            self.datamodule.keep_share(self.place.rank, self.place.world)
        self.model.prepare(self.datamodule)  # refuses here what does not fit, before anything is written
        try:
            optimizer = self.model.configure_optimizers()
        except (TypeError, ValueError) as error:
            raise InvalidInput("model.optimizer", error, "settings that this optimizer takes") from error
        if isinstance(optimizer, torch.optim.SparseAdam):  # which says so only in the first step
            raise InvalidInput("model.optimizer", "SparseAdam", "an optimizer of dense gradients, such as Adam")
        given = self._get(self.config_init, "trainer").callbacks or []
        given = given if isinstance(given, list) else [given]
        self.record = RunRecord(self.folder)
        ours = [LayerwiseLinearProbe(), self.record]
        if self.subcommand == "fit" and not self.only_check:
            checkpoint = StepCheckpoint(self.folder.checkpoints, self._get(self.config, "checkpoint_every"))
            self.stop = StopOnSignal(checkpoint)
            ours += [EventFiles(), StepLog(), HyperParameters(), checkpoint, self.stop]
            if self._get(self.config, "trainer").enable_progress_bar is not False:
                ours.append(RunProgress())
            if self._get(self.config, "trainer").logger in (None, True):
                kwargs["logger"] = TensorBoardLogger(self.folder.path.parent, name=self.folder.path.name, version="")
        else:
            kwargs["logger"] = False
        ours = [callback for callback in ours if not any(isinstance(other, type(callback)) for other in given)]
        kwargs["callbacks"] = [*given, *ours]
        kwargs["default_root_dir"] = str(self.folder.path)
        kwargs["enable_progress_bar"] = any(isinstance(c, RunProgress) for c in kwargs["callbacks"])
        kwargs["enable_checkpointing"] = self.subcommand == "fit" and not self.only_check
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
            raise InvalidInput("trainer", error, "what `rhm fit --help` lists under trainer") from error
        if self.place is None:
            ranks.check_ranks(trainer)
        if self.datamodule.batch_size % trainer.world_size:
            allowed = f"a multiple of the number of ranks, {trainer.world_size}"
            raise InvalidInput("data.batch_size", self.datamodule.batch_size, allowed)
        diagnostics = [callback for callback in kwargs["callbacks"] if isinstance(callback, Diagnostic)]
        for callback in diagnostics:
            callback.check(self.model)
            if sum(type(callback) is type(other) for other in diagnostics) > 1:
                raise InvalidInput("trainer.callbacks", f"{type(callback).__name__} twice", "each diagnostic once")
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        if not self.only_check:
            super()._run_subcommand(subcommand)

    # ---------------------------------------------------------------- the commands

    def fit(self, model: LocalRule, datamodule: RHMDataModule) -> None:
        """Train, from the last checkpoint if there is one, then test and keep the results."""
        if self.place is None:
            self._go_on(model, datamodule)
            return
        self.all_ranks.make(self.config_yaml)
        if self.launches:
            rhm = [sys.executable, "-m", "experiments.cli"]
            command = [*rhm, *self.arguments, f"--run_dir={self.all_ranks.path}", "--tables=false"]
            launch(command, self.all_ranks.path, self.place.world)
        elif not self.folder.finished:
            self._go_on(model, datamodule)
        results = put_together(self.all_ranks.path, self.place.world)
        if results is not None and self._get(self.config, "tables"):
            wide_console().print(replica_table(results))
            print(f"results in {self.all_ranks.results}")

    def _go_on(self, model: LocalRule, datamodule: RHMDataModule) -> None:
        try:
            with self.stop.listening():
                self._fit(model, datamodule)
        except (KeyboardInterrupt, SystemExit):
            say(f"stopped; the same command goes on from the last checkpoint in {self.folder.path}")
            ranks.leave(128 + signal.SIGINT)
        except Stopped as stopped:
            self._stopped(stopped)
        except OSError as error:
            if error.errno not in FULL:
                raise
            allowed = "a folder with room; checkpoints are kept and the same command goes on from the last"
            raise InvalidInput("run_dir", f"{self.folder.path} ({error.strerror})", allowed) from error
        finally:
            self.folder.release()

    def _fit(self, model: LocalRule, datamodule: RHMDataModule) -> None:
        last = ranks.from_first_rank(self.trainer, lambda: self.folder.start(self.settings, self.config_yaml, model))
        if last is not None:
            say(f"going on from {last}")
        start, end = datamodule.probe_range
        if datamodule.probes_trained_on:
            of = f"{datamodule.probes_trained_on:,} of the {end - start:,} strings that probes are fitted on"
            say(f"rhm: warning: {of} are training strings too: there are no more")
        self.trainer.fit(model, datamodule=datamodule, ckpt_path=last)
        self.trainer.test(model, datamodule=datamodule, verbose=False)
        if self.trainer.is_global_zero:
            status = "finished" if self.trainer.global_step >= self.trainer.max_steps else "stopped"  # by max_time, say
            self._draw()
            results = self.record.write(self.trainer, model, status)  # last: a run with results needs nothing more
            if self._get(self.config, "tables") and self.place is None:
                self._show(results)
                print(f"results in {self.folder.results}, probe heat map in {self.folder.path / 'probe.png'}")

    def _stopped(self, stopped: Stopped) -> None:
        """Say so, and put a Slurm job that was asked to make room back into the queue."""
        job = None
        if stopped.signum == signal.SIGUSR1 and self.trainer.is_global_zero:
            try:
                job = requeue()
            except InvalidInput as error:
                if self.place is None:
                    raise
                say(f"rhm: warning: {error}")  # each rank asks, as others may have ended long ago; one is enough
        how = "the same command goes on from there" if job is None else f"job {job} is back in the queue"
        say(f"{stopped}; {how}")
        in_job = stopped.signum == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ
        ranks.leave(0 if in_job else 128 + stopped.signum)

    def validate(self, model: LocalRule, datamodule: RHMDataModule) -> None:
        """Measure a run's last checkpoint; nothing is written."""
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=self._checkpoint(), verbose=False)
        self._show(collect_results(self.trainer, model, "finished", 0.0))

    def test(self, model: LocalRule, datamodule: RHMDataModule) -> None:
        """The same as validate, with logistic probes."""
        self.trainer.test(model, datamodule=datamodule, ckpt_path=self._checkpoint(), verbose=False)
        self._show(collect_results(self.trainer, model, "finished", 0.0))

    def _checkpoint(self) -> Path:
        last = newest_readable(self.folder.checkpoints, self.model)
        assert last is not None  # see RunFolder.check_measured
        return last

    def _probe(self) -> LayerwiseLinearProbe:
        return next(c for c in callbacks_of(self.trainer) if isinstance(c, LayerwiseLinearProbe))

    def _show(self, results: dict[str, Any]) -> None:
        if not self.trainer.is_global_zero:
            return
        console, probe, task = wide_console(), self._probe(), self.datamodule.task
        console.print(replica_table(results))
        groups = self._groups()
        size = largest(groups)
        of = f" at {size_name(size)}" if len(groups) > 1 else ""
        for name, table in ("ridge probes", probe.accuracy_KLR), ("logistic probes", probe.logistic_KLR):
            if table is not None:
                console.print(probe_table(table[..., groups[size]], task, name + of))

    def _groups(self) -> dict[Size, list[int]]:
        """Replicas by their sizes."""
        return by_size(zip(self.datamodule.replica_sizes, self.datamodule.replica_label_sizes, strict=True))

    def _draw(self) -> None:
        probe = self._probe()
        table = probe.accuracy_KLR if probe.logistic_KLR is None else probe.logistic_KLR
        if table is not None:
            groups = self._groups()
            names = [size_name(size) for size in groups] if len(groups) > 1 else [type(self.model).__name__]
            maps = {name: table[..., places].mean(-1) for name, places in zip(names, groups.values(), strict=True)}
            figure = heat_map(maps, 1 / self.datamodule.task.v)
            figure.savefig(self.folder.path / "probe.png", dpi=150)


def accelerators() -> list[str]:
    """What ``trainer.accelerator`` may be on this machine."""
    found = [name for name, item in AcceleratorRegistry.items() if item["accelerator"].is_available()]
    return ["auto", *sorted(found), *(["gpu"] if {"cuda", "mps"} & {*found} else [])]


# -------------------------------------------------------------------- what a person types


def discover() -> dict[str, type]:
    """Import every module whose classes settings may name; the classes by short name."""
    packages = networks, datamodules, rules, callbacks
    found: dict[str, type] = {}
    for package in packages:
        for info in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            found |= {
                name: item for name, item in vars(module).items() if inspect.isclass(item) and not inspect.isabstract(item)
            }
    return {name: item for name, item in found.items() if item.__module__.split(".")[0] in {p.__name__ for p in packages}}


def main(args: list[str] | None = None) -> None:
    """Run a command. What a person got wrong is one line on standard error and exit code 2."""
    args = sys.argv[1:] if args is None else args
    command = args[0] if args else "--help"
    try:
        if command in ("-h", "--help"):
            print("rhm: local learning rules on the Random Hierarchy Model\n")
            print("\n".join(f"  rhm {name:9} {text}" for name, text in COMMANDS.items()))
            print("\nSettings: `rhm fit --help` of a run and its trainer, `rhm fit --data.help` of the task,")
            print("`rhm fit --model.help=RULE` of a rule, `rhm fit --model=RULE --model.network.help=NETWORK` of its network.")
        elif command not in COMMANDS:
            raise InvalidInput("command", command, ", ".join(COMMANDS) + nearest(command, COMMANDS))
        elif command == "sweep":
            discover()
            quiet()
            sweep_command(args[1:])
        elif command in ("report", "rules", "describe", "curves", "search", "compare", "demo"):
            function = getattr(importlib.import_module(f"experiments.{command}"), command)
            parser = Parser(prog=f"rhm {command}", description=COMMANDS[command])
            parser.add_function_arguments(function, as_positional=command == "report")
            function(**vars(parser.parse_args(args[1:])))
        else:
            discover()
            quiet()
            ranks.end_with_parent()
            RHMCommand(with_run_settings(command, args[1:]), only_check=command == "check")
    except InvalidInput as error:
        fail(str(error))
    except ParsingError as error:
        options = {*error.options, *(SETTINGS if command in RUN else ())}
        fail(explain(str(error), discover(), options, command))
    except ValueError as error:
        if ": got " not in str(error):  # not ours: built classes pass on what they refuse
            raise
        fail(explain(str(error), discover(), (), command))


def instantiate(args: list[str]) -> LocalRule:
    """The rule that settings describe, without a trainer and not yet prepared; ``rule.data`` is its datamodule.

    Args:
        args: of ``model`` and ``data``, such as ``--config=configs/rules/dfa.yaml`` or ``--data.L=3``.

    Raises:
        InvalidInput: no rule is named.
    """
    discover()
    parser = _parser_of_a_rule()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JsonargparseDeprecationWarning)
        built = parser.instantiate_classes(parser.parse_args(with_nulls(args)))
    if built.model is None:
        raise InvalidInput("model", "nothing", "--model=RULE or a settings file with -c")
    built.model.__dict__["data"] = built.data
    return built.model


@cache
def _parser_of_a_rule() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(LocalRule, "model")
    parser.add_subclass_arguments(RHMDataModule, "data")
    parser.add_argument("--trainer", type=dict)
    parser.set_defaults({"data": {"class_path": "datamodules.RHMDataModule"}})
    return parser


def sweep_command(args: list[str]) -> None:
    """Read a study, with its quick variant if asked for, and sweep it."""
    parser = Parser(prog="rhm sweep", description=COMMANDS["sweep"])
    parser.add_argument("-c", "--config", action="config", help="the study's file; later settings win")
    parser.add_argument("--run_dir", type=str, help="folder of the study")
    parser.add_argument("--launcher", type=str, default="local", help="local, slurm or ray")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--slurm", type=dict, default={}, help="parameters of submitit's Slurm executor")
    flags = {"quick": "the file's quick variant", "retry": "repeat what has failed", "strict": "refuse rather than skip"}
    flags["dry_run"] = "print what would be run and train nothing"
    for flag, text in flags.items():
        parser.add_argument(f"--{flag}", f"--{flag.replace('_', '-')}", action="store_true", help=text)
    parser.add_class_arguments(Study)
    settings = parser.parse_args(study_settings(args))
    where = Launcher(settings.launcher, settings.jobs, settings.slurm)
    built = parser.instantiate_classes(settings)
    study = Study(**{field.name: built[field.name] for field in fields(Study)})
    if settings.run_dir is None and not settings.dry_run:
        raise InvalidInput("run_dir", "nothing", "--run_dir=DIR, the folder of the study")
    sweep(study, settings.run_dir or "", where, settings.retry, settings.strict, settings.dry_run)


def with_run_settings(command: str, args: list[str]) -> list[str]:
    """Arguments for LightningCLI: ``check`` is a fit that stops early; validate and test take a run's own settings.

    Raises:
        InvalidInput: a file or folder that cannot be read as settings.
    """
    for argument, following in pairwise([*args, ""]):
        option, _, value = argument.partition("=")
        if option in ("-c", "--config"):
            check_file(value or following)
    subcommand = "fit" if command == "check" else command
    if subcommand != "fit" and not any(a.split("=")[0] in ("-c", "--config") for a in args):
        for place, argument in enumerate(args):
            if argument == "--run_dir" or argument.startswith("--run_dir="):
                run_dir = argument.partition("=")[2] or (args[place + 1] if place + 1 < len(args) else "")
                config = RunFolder(run_dir).config
                if not run_dir or not config.exists():
                    raise InvalidInput("run_dir", run_dir or "nothing", "a folder with a run's config.yaml")
                return [subcommand, "--config", str(config), *with_nulls(args)]
    return [subcommand, *with_nulls(args)]


def check_file(path: str) -> None:
    """See that a settings file, if there is one of this name, can be read.

    Raises:
        InvalidInput: a folder, a file that is not YAML, or one without settings.
    """
    if not os.path.exists(path):
        return  # the parser says so, or reads settings that are typed in place of a name
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except OSError as error:
        raise InvalidInput("config", path, f"a file that can be read ({error.strerror})") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput("config", path, f"a YAML file ({error})") from error
    if not isinstance(content, dict):
        raise InvalidInput("config", path, "a YAML file with settings, such as those in configs")


NULL = re.compile(r"--(model|data)\.(\w+)\.(\w+)=(?:null|None|~)")


def with_nulls(args: list[str]) -> list[str]:
    """Arguments in which ``--model.network.bottleneck=null`` is as jsonargparse understands it.

    It takes the null of a setting within a class for the string "None" (4.53).
    """
    return [NULL.sub(_null, argument) for argument in args]


def _null(argument: re.Match[str]) -> str:
    null: dict[str, Any] = {argument[3]: None}
    plain = argument[2] == "block"  # a dataclass, without init_args
    return f"--{argument[1]}.{argument[2]}={json.dumps(null if plain else {'init_args': null})}"


def quiet() -> None:
    """Keep Lightning to what a person needs to know, and warnings to a line."""
    for name in "pytorch_lightning", "lightning_fabric":
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=JsonargparseDeprecationWarning)
    for message in (
        r".*LightningCLI's args parameter.*",
        r".*does not have many workers.*",
        r".*sync_dist=True.*",
        r".*no logger configured.*",
        r".*all_gather is deprecated.*",
        r".*isinstance\(treespec, LeafSpec\).*",
    ):
        warnings.filterwarnings("ignore", message)
    warnings.formatwarning = lambda message, *_, **__: f"rhm: warning: {message}\n"


def say(message: str) -> None:
    """One line on standard error, by the first rank."""
    if ranks.is_first():
        print(message, file=sys.stderr, flush=True)


def fail(message: str) -> None:
    """One line on standard error, exit code 2."""
    say(f"rhm: {' '.join(message.split())}")
    ranks.leave(2)


if __name__ == "__main__":
    main()
