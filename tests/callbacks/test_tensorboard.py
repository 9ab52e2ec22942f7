"""What loggers are told, read back from event files and compared with what a run did.

Shape suffixes: R replica, K layer, L level.
"""

from __future__ import annotations

import csv
import io
import math
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from command_line import SMALL
from matplotlib import colormaps
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from callbacks import EventFiles, Histograms, HyperParameters, LayerwiseLinearProbe, StepLog
from callbacks.figures import CELL, heat_map, map_picture
from callbacks.tensorboard import log_figure, log_scalars, shows_figures
from datamodules import ClassPairs, RHMDataModule, SiblingPairs
from experiments.cli import main
from experiments.run.checkpoints import StepCheckpoint
from networks import DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork
from rhm import InvalidInput
from rules.backprop import Backprop
from rules.contrastive import LayerwiseContrastive

TASK = {"v": 4, "n": 4, "m": 2, "s": 2, "L": 3}
SIZES = {"train_size": 32, "test_size": 64, "probe_size": 64, "batch_size": 16}


class Witness(pl.Callback):
    """Remembers losses, gradients and weights after each step."""

    def __init__(self):
        self.losses, self.grads, self.weights = {}, {}, {}

    def on_train_batch_end(self, trainer, rule, outputs, *_):
        step = trainer.global_step
        self.losses[step] = {name: loss_R.clone().numpy() for name, loss_R in outputs["losses"].items()}
        names = [group["name"] for group in trainer.optimizers[0].param_groups]
        own = {name: list(part.named_parameters()) for name, part in zip(names, rule.parts, strict=True)}
        self.grads[step] = {k: {n: p.grad.clone().numpy() for n, p in ps if p.grad is not None} for k, ps in own.items()}
        self.weights[step] = {k: {n: p.detach().clone().numpy() for n, p in ps} for k, ps in own.items()}


def train(folder: Path, rule, *callbacks, seeds=(0,), logger=None, max_steps=4, strategy="auto", devices=1, **data):
    """A short run with a validation every second step and a test, in the way of the command line."""
    trainer = pl.Trainer(
        max_steps=max_steps,
        max_epochs=-1,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        accelerator="cpu",
        strategy=strategy,
        devices=devices,
        use_distributed_sampler=False,
        logger=TensorBoardLogger(folder, name="", version="") if logger is None else logger,
        callbacks=[EventFiles(), StepLog(every=2), *callbacks],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = RHMDataModule(**{**TASK, **SIZES, "seeds": list(seeds), **data})
    trainer.fit(rule, module)
    if devices == 1:  # forked ranks leave their trainer's step behind
        trainer.test(rule, module, verbose=False)
    return rule


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), {"scalars": 0, "images": 0, "tensors": 0, "histograms": 0}).Reload()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = read(folder)
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def layout(folder: Path) -> dict[str, dict[str, str]]:
    """The charts of the tab *Custom scalars*: the first layout is the one that TensorBoard reads."""
    parsed = Layout.FromString(read(folder).Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {c.title: {chart.title: list(chart.multiline.tag) for chart in c.chart} for c in parsed.category}
    assert all(len(tags) == 1 for own in charts.values() for tags in own.values())
    return {title: {name: tags[0] for name, tags in own.items()} for title, own in charts.items()}


# -------------------------------------------------------------------- numbers


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]], ids=["R=1", "R=3"])
def test_losses_and_norms_of_updates_are_means_and_deviations_over_replicas(seeds, tmp_path):
    witness = Witness()
    rule = LayerwiseContrastive(HierarchicalNetwork(8, bottleneck=4))
    train(tmp_path, rule, witness, seeds=seeds, pairs=SiblingPairs())
    points, std = scalars(tmp_path), {}
    expected = {f"train/{name}": {s: witness.losses[s][name] for s in (2, 4)} for name in witness.losses[2]}
    for layer in witness.grads[2]:
        for s in (2, 4):
            norms = [math.sqrt(sum((g[r] ** 2).sum() for g in witness.grads[s][layer].values())) for r in range(len(seeds))]
            expected.setdefault(f"train/update_norm/{layer}", {})[s] = norms
    assert {"train/loss/layer1", "train/loss/readout", "train/update_norm/layer3", "train/update_norm/readout"} <= set(expected)
    if len(seeds) > 1:
        std = {
            re.sub(r"/(\w+)$", r"_std/\1", tag): {s: np.std(x, ddof=1) for s, x in own.items()} for tag, own in expected.items()
        }
    wanted = {tag: {s: np.mean(x) for s, x in own.items()} for tag, own in expected.items()} | std
    for tag, own in wanted.items():
        assert [s for s, _ in points[tag]] == [2, 4]
        np.testing.assert_allclose([x for _, x in points[tag]], list(own.values()), rtol=1e-4)
    others = {"train/samples", "train/samples_per_second", "train/learning_rate"}
    assert {tag for tag in points if tag.startswith("train/")} == set(wanted) | others
    assert points["train/samples"] == [(2, 32), (4, 64)]
    assert [x for _, x in points["train/learning_rate"]] == pytest.approx([1e-3, 1e-3])
    assert all(x > 0 for _, x in points["train/samples_per_second"])


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]], ids=["R=1", "R=3"])
def test_accuracies_and_probes_stand_at_their_step_once(seeds, tmp_path):
    probe = LayerwiseLinearProbe(logistic=False)
    rule = train(tmp_path, Backprop(HierarchicalNetwork(8)), probe, HyperParameters(), seeds=seeds)
    points = scalars(tmp_path)
    spread = {"test/accuracy_std"} if len(seeds) > 1 else set()
    assert {tag for tag in points if tag.startswith("test/")} == {"test/accuracy"} | spread
    for tag in points:
        assert [s for s, _ in points[tag]] == [2, 4], tag
    last = {tag: own[-1][1] for tag, own in points.items()}
    accuracy_R = rule.test_accuracy_R.numpy()
    assert last["test/accuracy"] == pytest.approx(accuracy_R.mean())
    assert last["hp/accuracy"] == pytest.approx(accuracy_R.mean())
    assert last["hp/accuracy_lowest"] == pytest.approx(accuracy_R.min())
    for k in range(3):
        assert last[f"hp/probe_layer{k + 1}"] == pytest.approx(float(probe.accuracy_KLR[k, k + 1].mean()))
        for level in range(4):
            own_R = probe.accuracy_KLR[k, level].numpy()
            assert last[f"probe/level{level}/layer{k + 1}"] == pytest.approx(own_R.mean())
            if spread:
                assert last[f"probe/level{level}_std/layer{k + 1}"] == pytest.approx(own_R.std(ddof=1), abs=1e-6)
    if spread:
        assert last["test/accuracy_std"] == pytest.approx(accuracy_R.std(ddof=1), abs=1e-6)


def test_a_learning_curve_has_a_line_for_each_size_on_one_chart(tmp_path):
    rule = train(tmp_path, Backprop(HierarchicalNetwork(8)), seeds=[0, 1], train_size=[16, 32, 64])
    points, table = scalars(tmp_path), rule.test_accuracy_R.numpy().reshape(2, 3)
    for p, size in enumerate([16, 32, 64]):
        assert points[f"test/accuracy_P{size}"][-1] == (4, pytest.approx(table[:, p].mean()))
        assert points[f"test/accuracy_P{size}_std"][-1] == (4, pytest.approx(table[:, p].std(ddof=1), abs=1e-6))
    chart = layout(tmp_path)["accuracy"]["by training strings"]
    assert [tag for tag in points if re.search(chart, tag)] == [f"test/accuracy_P{size}" for size in (16, 32, 64)]


@pytest.mark.parametrize(
    "network",
    [HierarchicalNetwork(8), HierarchicalNetwork(8, depth=2), DenseNetwork(8, depth=4), LocallyConnectedNetwork(8)],
    ids=["shared", "shallow", "dense", "local"],
)
def test_every_probe_is_on_one_chart_and_no_chart_is_empty(network, tmp_path):
    train(tmp_path, Backprop(network), LayerwiseLinearProbe(logistic=False), max_steps=2)
    charts, tags = layout(tmp_path), list(scalars(tmp_path))
    for own in charts.values():
        assert all(any(re.search(pattern, tag) for tag in tags) for pattern in own.values()), own
    probes = [tag for tag in tags if re.match(r"probe/level\d+/", tag)]
    assert probes
    for tag in probes:
        chart = [name for name, pattern in charts["probe"].items() if re.search(pattern, tag)]
        assert chart == [tag.split("/")[1]]


def test_losses_of_two_ranks_are_those_of_one_with_all_strings(tmp_path):
    values = {}
    for devices in (1, 2):
        strategy = DDPStrategy(start_method="fork") if devices == 2 else "auto"
        train(tmp_path / str(devices), Backprop(HierarchicalNetwork(8)), devices=devices, strategy=strategy, train_size=64)
        values[devices] = scalars(tmp_path / str(devices))
    assert values[1].keys() == values[2].keys()
    for tag, points in values[1].items():
        if tag != "train/samples_per_second":
            assert values[2][tag] == [(s, pytest.approx(x, rel=1e-5)) for s, x in points], tag


# -------------------------------------------------------------------- pictures and histograms


def test_a_picture_shows_its_values_as_colours_with_the_first_layer_at_the_bottom(tmp_path):
    probe = LayerwiseLinearProbe(logistic=True)
    train(tmp_path, Backprop(HierarchicalNetwork(8)), probe, seeds=[0, 1])
    events = read(tmp_path)
    assert [e.step for e in events.Images("probe/heat_map")] == [2, 4]
    lowest = float(probe.baseline_KLR.mean(-1).nan_to_num(nan=1.0).min())
    tables = {"probe/heat_map": probe.accuracy_KLR, "probe/heat_map_logistic": probe.logistic_KLR}
    for tag, table_KLR in tables.items():
        pixels = np.asarray(Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string)).convert("RGB"))
        assert pixels.shape == (4 * CELL, 5 * CELL, 3)
        for k in range(3):
            for level in range(4):
                share = (float(table_KLR[k, level].mean()) - lowest) / (1 - lowest)
                colour = np.array(colormaps["viridis"](share)[:3]) * 255
                corner = pixels[(2 - k) * CELL + 3, (level + 1) * CELL + 3]
                assert np.abs(corner - colour).max() <= 1, (tag, k, level)
    grey = map_picture(torch.tensor([[math.nan]]), 0, 1)[3, CELL + 3]
    assert grey.tolist() == [128, 128, 128]


def test_pictures_and_histograms_have_a_pace_of_their_own(tmp_path):
    train(
        tmp_path,
        Backprop(HierarchicalNetwork(8)),
        LayerwiseLinearProbe(logistic=False, picture_every=2),
        Histograms(3),
        max_steps=6,
    )
    events = read(tmp_path)
    assert [e.step for e in events.Images("probe/heat_map")] == [2, 6]
    assert [e.step for e in events.Histograms("weights/layer1/weight")] == [3, 6]
    with pytest.raises(InvalidInput, match="Histograms.every: got 0"):
        Histograms(0)
    with pytest.raises(InvalidInput, match="picture_every: got 0"):
        LayerwiseLinearProbe(picture_every=0)


def test_histograms_count_weights_and_updates_of_every_layer(tmp_path):
    witness = Witness()
    train(tmp_path, Backprop(HierarchicalNetwork(8, bottleneck=4)), witness, Histograms(2), seeds=[0, 1])
    events = read(tmp_path)
    for kind, seen in ("weights", witness.weights), ("updates", witness.grads):
        tags = {tag for tag in events.Tags()["histograms"] if tag.startswith(kind)}
        assert tags == {f"{kind}/{layer}/{name.rsplit('_', 1)[0]}" for layer, own in seen[4].items() for name in own}
        for layer, own in seen[4].items():
            for name, x in own.items():
                event = events.Histograms(f"{kind}/{layer}/{name.rsplit('_', 1)[0]}")[-1]
                value, x = event.histogram_value, x.astype(np.float64)
                assert event.step == 4 and value.num == x.size
                assert (value.min, value.max) == (x.min(), x.max())
                np.testing.assert_allclose([value.sum, value.sum_squares], [x.sum(), (x**2).sum()], rtol=1e-9, atol=1e-12)
                counts, limits = np.histogram(x, 64)
                assert value.bucket == counts.tolist()
                np.testing.assert_allclose(value.bucket_limit, limits[1:], rtol=1e-9, atol=1e-12)


# -------------------------------------------------------------------- hyper-parameters


def backend(folder: Path) -> Context:
    """TensorBoard's side of the tab *HParams*."""
    events = EventMultiplexer().AddRunsFromDirectory(str(folder))
    events.Reload()
    return Context(TBContext(data_provider=MultiplexerDataProvider(events, str(folder))))


def columns(folder: Path) -> list[tuple[str, bool]]:
    """Columns of settings in their order, and whether the runs differ in them."""
    context, request = backend(folder), RequestContext()
    found = context.experiment_from_metadata(request, "", True, context.hparams_metadata(request, ""), None)
    return [(info.name, info.differs) for info in found.hparam_infos]


def session_groups(folder: Path, sort_by: str) -> list[tuple[str, dict, dict]]:
    """Rows as TensorBoard makes them, the largest first: run, settings, results."""
    column = api_pb2.ColParams(metric=api_pb2.MetricName(tag=sort_by), order=api_pb2.ORDER_DESC)
    request = api_pb2.ListSessionGroupsRequest(slice_size=9, col_params=[column], allowed_statuses=[api_pb2.STATUS_SUCCESS])
    answer = Handler(RequestContext(), backend(folder), "", request).run()
    rows = []
    for group in answer.session_groups:
        settings = {k: x.number_value if x.HasField("number_value") else x.string_value for k, x in group.hparams.items()}
        rows.append(
            (
                group.sessions[0].name,
                settings,
                {m.name.tag: m.value for m in group.metric_values if m.name.tag.startswith("hp/")},
            )
        )
    return rows


def test_a_folder_of_runs_sorts_by_what_they_reached_and_says_what_they_were(tmp_path):
    reached = {}
    for name, rule, more in (
        ("a", Backprop(HierarchicalNetwork(8), clip=2.0), {}),
        ("b", LayerwiseContrastive(HierarchicalNetwork(12, bottleneck=4)), {"pairs": ClassPairs(), "seeds": [0, 1]}),
        ("c", Backprop(DenseNetwork(8, depth=2)), {"train_size": [16, 32]}),
    ):
        train(tmp_path / name, rule, LayerwiseLinearProbe(logistic=False), HyperParameters(), **more)
        reached[name] = float(rule.test_accuracy_R.mean())
    rows = session_groups(tmp_path, "hp/accuracy")
    assert [name for name, _, _ in rows] == sorted(reached, key=lambda name: -reached[name])
    assert len(set(reached.values())) == 3
    settings = {name: own for name, own, _ in rows}
    common = {"v": 4, "n": 4, "m": 2, "s": 2, "L": 3, "batch_size": 16, "optimizer": "Adam", "lr": 1e-3, "steps": 4}
    for name, own in {
        "a": {"rule": "Backprop", "supervision": "labels", "pairs": "none", "train_size": 32, "width": 8, "clip": 2},
        "b": {"rule": "LayerwiseContrastive", "supervision": "labels", "pairs": "ClassPairs", "replicas": 2, "width": 12}
        | {"bottleneck": 4, "temperature": 1.0, "block.expansion": "backprop", "label_context": "false"},
        "c": {"network": "DenseNetwork", "depth": 2, "train_size": "16 32", "replicas": 2, "seeds": 1},
    }.items():
        assert {key: settings[name].get(key) for key in (common | own)} == common | own
    found = dict(columns(tmp_path))
    assert {"clip", "bottleneck", "temperature", "depth"} <= set(found)  # columns of one run each
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert {"rule", "pairs", "network", "train_size", "width"} <= {name for name in found if found[name]}
    for name, _, values in rows:
        assert values["hp/accuracy"] == pytest.approx(reached[name])
        assert {"hp/accuracy_lowest", "hp/probe_layer1"} <= set(values)


# -------------------------------------------------------------------- runs that go on, other loggers


def test_a_resumed_run_shows_every_point_once_as_if_it_had_never_stopped(tmp_path, monkeypatch):
    """It stops at step 2, before any checkpoint, and at step 7, after one at step 4; a validation at step 6 is made again."""

    on_disk, cuts = [], [7, 2]

    class Log(StepLog):
        def __init__(self):
            super().__init__(1)

        def on_train_batch_end(self, trainer, *args):
            super().on_train_batch_end(trainer, *args)
            if folder == "cut" and trainer.global_step in cuts:
                raise RuntimeError(f"power cut at step {cuts.pop()}")

    def save(self, trainer):
        StepCheckpoint_save(self, trainer)
        on_disk.append(scalars(tmp_path / folder)["train/loss/readout"][-1][0])

    StepCheckpoint_save = StepCheckpoint.save
    monkeypatch.setattr(StepCheckpoint, "save", save)
    monkeypatch.setattr("experiments.run.command.StepLog", Log)
    run = ["fit", "--model=Backprop", *SMALL, "--trainer.max_steps=9", "--trainer.val_check_interval=3"]
    run += ["--checkpoint_every=4", "--data.seeds=[0,1]", "--tables=false"]
    for folder, stop in ("whole", None), ("cut", 2), ("cut", 7):
        with pytest.raises(RuntimeError, match=f"power cut at step {stop}") if stop else nullcontext():
            main([*run, f"--run_dir={tmp_path / folder}"])
    assert on_disk == [4, 8, 9, 4]
    assert [s for s, _ in scalars(tmp_path / "cut")["train/loss/readout"]][-1] == 7
    main([*run, f"--run_dir={tmp_path / 'cut'}"])
    whole, cut = (scalars(tmp_path / name) for name in ("whole", "cut"))
    assert [s for s, _ in whole["train/loss/readout"]] == list(range(1, 10))
    assert [s for s, _ in whole["test/accuracy"]] == [3, 6, 9]
    whole.pop("train/samples_per_second")
    assert [s for s, _ in cut.pop("train/samples_per_second")] == list(range(1, 10))
    assert cut == whole
    assert layout(tmp_path / "cut") == layout(tmp_path / "whole")
    for tag in "probe/heat_map", "probe/heat_map_logistic":
        images = [[(e.step, e.encoded_image_string) for e in read(tmp_path / name).Images(tag)] for name in ("whole", "cut")]
        assert images[0] == images[1]
    (_, one, reached), (_, other, reached_too) = session_groups(tmp_path, "hp/accuracy")
    assert one == other and reached == reached_too


def test_other_loggers_get_the_numbers_and_no_logger_is_needed(tmp_path):
    class NoMatter(pl.Callback):
        def on_validation_end(self, trainer, rule):
            log_scalars(trainer, {"mine": 1.0})
            if shows_figures(trainer):
                raise AssertionError("drawn for nobody")
            log_figure(trainer, "mine", heat_map({"a": torch.zeros(1, 1)}, 0))

    callbacks = [LayerwiseLinearProbe(logistic=False), HyperParameters(), Histograms(2), NoMatter()]
    train(tmp_path, Backprop(HierarchicalNetwork(8)), *callbacks, logger=False)
    assert not list(tmp_path.iterdir())
    logger = CSVLogger(tmp_path, name="", version="")
    callbacks = [LayerwiseLinearProbe(logistic=False), HyperParameters(), Histograms(2), NoMatter()]
    rule = train(tmp_path, Backprop(HierarchicalNetwork(8)), *callbacks, logger=logger)
    rows: dict[int, dict[str, str]] = {}
    for row in csv.DictReader((tmp_path / "metrics.csv").open()):  # a line for each call
        rows.setdefault(int(row["step"]), {}).update({key: x for key, x in row.items() if x})
    assert sorted(rows) == [2, 4]
    assert float(rows[4]["test/accuracy"]) == pytest.approx(float(rule.test_accuracy_R))
    assert float(rows[4]["hp/accuracy"]) == pytest.approx(float(rule.test_accuracy_R))
    assert float(rows[4]["train/samples"]) == 64 and float(rows[2]["mine"]) == 1
    assert "rule: Backprop" in (tmp_path / "hparams.yaml").read_text()
    assert not list(tmp_path.glob("events*"))


def test_two_loggers_are_both_told(tmp_path):
    loggers = [TensorBoardLogger(tmp_path / "a", name="", version=""), TensorBoardLogger(tmp_path / "b", name="", version="")]
    train(tmp_path, Backprop(HierarchicalNetwork(8)), LayerwiseLinearProbe(logistic=False), HyperParameters(), logger=loggers)
    assert scalars(tmp_path / "a") == scalars(tmp_path / "b") != {}
    assert layout(tmp_path / "a") == layout(tmp_path / "b")
