"""Shows an estimate as a table in the terminal."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from sftkey_dist.capacity.estimate import Estimate, StageCapacity
from sftkey_dist.capacity.host import Export
from sftkey_dist.capacity.memory import Memory

_MORE_ON_HOST = 1.5
"""Factor of the host memory from which a proposal names it."""


def capacity_table(title: str, stage: StageCapacity, device_gib: float) -> Table:
    """The table of a stage on a cluster: memory by part, time by part, and the conclusions."""
    found = stage.estimate
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", overflow="fold")
    table.add_column("", justify="right", overflow="fold")
    _add_memory(table, "memory of a rank", found.memory, device_gib)
    if found.guarding is not None:
        _add_memory(table, "while the guard generates", found.guarding, device_gib)
    table.add_row("computation", f"{found.seconds.balanced:.3g} s a step")
    table.add_row("waiting for the slowest rank", f"{found.seconds.compute - found.seconds.balanced:.3g} s")
    table.add_row("communication, less what is hidden", f"{found.seconds.communication:.3g} s")
    table.add_row("optimizer", f"{found.seconds.optimizer:.3g} s")
    table.add_row("a step", f"{found.seconds.total:.3g} s", style="bold")
    table.add_row("received by a rank", f"{found.received_gib:.1f} GiB a step")
    table.add_row("tokens", f"{found.tokens_per_second:,.0f} a second")
    table.add_row("the stage", f"{_duration(found.stage_hours)}, {stage.num_steps:,} steps", style="bold")
    if found.cost is not None:
        table.add_row("cost", _money(found.cost))
    table.add_row("a checkpoint", f"{found.checkpoint_gib:.1f} GiB, {found.checkpoint_seconds:.0f} s beside training")
    table.add_row("the exported model", _export(found.export))
    table.add_row("host memory of a node", _host(found.host))
    table.add_row("limited by", found.limit, end_section=True)
    nodes = "none of such nodes" if stage.smallest_nodes is None else f"{stage.smallest_nodes} x such a node"
    table.add_row("smallest cluster that it fits on", nodes)
    if stage.help is not None:
        setting, helped = stage.help
        then = f"{helped.seconds.total:.3g} s, {helped.memory.total_gib:.1f} GiB"
        if helped.host.total_gib > _MORE_ON_HOST * found.host.total_gib:
            then += f", {helped.host.total_gib:,.0f} GiB of host memory"
        table.add_row("what would help most", Text(f"{setting}: {then}"))
    return table


def total_in_words(stages: Sequence[Estimate]) -> str:
    """The time and the cost of all stages, without evaluations, in a line."""
    hours, costs = sum(stage.stage_hours for stage in stages), [stage.cost for stage in stages]
    cost = f", cost {_money(sum(filter(None, costs)))}" if None not in costs else ""
    return f"all {len(stages)} stages: {_duration(hours)}{cost}, without evaluations"


def _money(amount: float) -> str:
    return f"{amount:,.{0 if amount >= 100 else 2}f}"


def _export(export: Export) -> str:
    files = f"{export.files:,} file{'s' if export.files > 1 else ''}"
    return f"{export.gib:.1f} GiB in {files}, {export.seconds:.0f} s"


def _host(host: Memory) -> str:
    """The sum, and its largest part."""
    part = max(host.parts, key=lambda name: host.parts[name])
    return f"{host.total_gib:.1f} GiB, most of it {part}"


def _duration(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 0.1 else f"{60 * hours:.2f} min"


def _add_memory(table: Table, name: str, memory: Memory, device_gib: float) -> None:
    """Add the parts, and whether their sum fits."""
    for part, gib in memory.parts.items():
        table.add_row(part, f"{gib:.2f} GiB")
    verdict = "fits" if memory.total_gib <= device_gib else "does not fit"
    table.add_row(name, f"{memory.total_gib:.1f} of {device_gib:.0f} GiB: {verdict}", style="bold", end_section=True)
