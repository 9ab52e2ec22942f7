"""Event files that show a run as if it had never stopped, with charts that bring together what belongs together."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.find import callbacks_of
from callbacks.tensorboard import HasCharts, writers
from rules import LocalRule

CHARTS = {
    "accuracy": {
        "on test strings": r"^test/accuracy$",
        "by training strings": r"^test/accuracy_P\d+$",
    },
    "training": {
        "losses": r"^train/loss/",
        "norms of updates": r"^train/update_norm/",
    },
}
"""Charts of every run; callbacks have others."""


class EventFiles(Callback):
    """Keep what TensorBoard shows in step with checkpoints, and lay out its tab *Custom scalars*.

    Points are on disk before a checkpoint is, so none before it is lost; a resumed run takes back the points that the run had
    written after the checkpoint from which it goes on, and writes them again.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take back what is going to be written again, and lay out the charts of a new run."""
        assert isinstance(pl_module, LocalRule)
        for writer in writers(trainer):
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # here, where TensorBoard is known to be

            start = Event(step=trainer.global_step + 1, session_log=SessionLog(status=SessionLog.START))
            writer._get_file_writer().add_event(start)  # takes back what a run that stopped has written of later steps
            if trainer.global_step == 0:  # TensorBoard reads the first layout of a run and no other
                layout = charts(trainer, pl_module)
                writer.add_custom_scalars(
                    {title: {name: ["Multiline", [tags]] for name, tags in own.items()} for title, own in layout.items()}
                )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write what is still in memory."""
        for logger in trainer.loggers:
            logger.save()


def charts(trainer: Trainer, rule: LocalRule) -> dict[str, dict[str, str]]:
    """For each heading and chart the pattern of its tags; a chart that would stay empty is left out."""
    layout = {title: dict(own) for title, own in CHARTS.items()}
    if len(set(rule.data.replica_sizes)) == 1:
        del layout["accuracy"]["by training strings"]
    for callback in callbacks_of(trainer):
        if isinstance(callback, HasCharts):
            for title, own in callback.charts(rule).items():
                layout[title] = layout.get(title, {}) | own
    return layout
