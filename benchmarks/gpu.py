"""``python -m benchmarks.gpu``: step time, samples/s and use of a GPU, for 1 to 256 replicas.

``--device=cpu`` runs a tiny version of the same code. Shape suffixes: R replica, M rows, F inputs, E units.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.steps import NAMES, Steps, move, operations, rule_of
from datamodules import Batch
from rules import LocalRule


class CapturedSteps(Steps):
    """Steps that are, but for their strings, one CUDA graph.

    Raises:
        RuntimeError: the step does something that a graph cannot hold.
    """

    @torch.no_grad()
    def __init__(self, rule: LocalRule):
        super().__init__(rule)
        for group in self.optimizer.param_groups:
            group["capturable"] = True
        self.batch = self._copy(rule.data.train_batch(0))
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what is made once must exist before the capture
            for _ in range(3):
                self.learn(self.batch)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.learn(self.batch)

    @staticmethod
    def _copy(batch: Batch) -> Batch:
        return Batch._make(item.clone() if isinstance(item, torch.Tensor) else item for item in batch)

    @torch.no_grad()
    def __call__(self, steps: int = 1) -> None:
        for _ in range(steps):
            for own, new in zip(self.batch, self.rule.data.train_batch(self.step), strict=True):
                if isinstance(own, torch.Tensor) and isinstance(new, torch.Tensor):
                    own.copy_(new)
            self.graph.replay()
            self.step += 1


def seconds(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """Seconds of one call, the device's work included, after a tenth of them to warm up."""
    for _ in range(1 + steps // 10):
        step()
    wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return (time.perf_counter() - start) / steps


def wait(device: torch.device) -> None:
    """Until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product_rate(device: torch.device, size: int) -> float:
    """Floating-point operations a second of a large batched matrix product."""
    x_RMF, w_RFE = torch.randn(8, size, size, device=device), torch.randn(8, size, size, device=device)
    return 2 * 8 * size**3 / seconds(lambda: torch.bmm(x_RMF, w_RFE), 20, device)


def host_waits(step: Steps, device: torch.device) -> str:
    """How often the host waits for the device in a step."""
    if device.type != "cuda":
        return "-"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return str(sum("synchronizing" in str(warning.message) for warning in caught))


def captured(rule: LocalRule, eager: float, steps: int, device: torch.device) -> str:
    """How much faster the step is as a graph, or why it is none."""
    if device.type != "cuda":
        return "-"
    try:
        return f"{eager / seconds(CapturedSteps(rule), steps, device):.2f}"
    except RuntimeError as error:
        return f"no: {str(error).splitlines()[0][:40]}"


def main(args: list[str] | None = None) -> None:
    """Print the table, or one line where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu is a tiny version, to try the code")
    device = torch.device(parser.parse_args(args).device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing measured (--device=cpu tries the code)")
        return
    real = device.type == "cuda"
    width, batch, counts, steps, size = (256, 128, (1, 8, 64, 256), 100, 4096) if real else (8, 4, (1, 2), 2, 32)
    name = torch.cuda.get_device_name(device) if real else "CPU, tiny"
    rate = product_rate(device, size)
    precision = torch.get_float32_matmul_precision()
    table = Table(
        title=f"{name}, torch {torch.__version__}, width {width}, batch {batch}, L=4; "
        f"matrix products {rate / 1e12:.1f} Tflop/s ({precision})"
    )
    for column in "rule", "R", "step, ms", "samples/s", "of the products' rate", "host waits", "as a CUDA graph":
        table.add_column(column)
    for name in track(NAMES, "steps"):
        for replicas in counts:
            rule = rule_of(name, replicas, width, batch)
            move(rule, device)
            step = Steps(rule)
            own = seconds(step, steps, device)
            flops, waits = operations(step), host_waits(step, device)
            samples, share = f"{replicas * batch / own:,.0f}", f"{flops / own / rate:.2f}"
            graph = captured(rule, own, steps, device)
            table.add_row(name, str(replicas), f"{own * 1e3:.2f}", samples, share, waits, graph)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
