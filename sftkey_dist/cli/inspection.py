"""Commands that show what a run will do before it trains, where, and how large it must be: show, plan, preflight."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from sftkey_dist.cli.arguments import Configuration, load_run_config, parse_numbers, separate_overrides
from sftkey_dist.cli.output import as_relative
from sftkey_dist.config import is_study, load_study
from sftkey_dist.console import console, visible
from sftkey_dist.errors import ConfigError
from sftkey_dist.files import folder_kept_if_used
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.lock import find_writer, locked_run

if TYPE_CHECKING:
    from sftkey_dist.capacity.hardware import Cluster
    from sftkey_dist.config import RunConfig
    from sftkey_dist.pipeline.run_plan import RunPlan

_USUAL_GPU = "h100-80g"
_ONE_POINT = 0.01

Ranks = Annotated[
    str | None,
    typer.Option(
        help="Numbers of data-parallel ranks, separated by commas; default: cluster.num_workers, divided by the ranks "
        "that share a row."
    ),
]
Difference = Annotated[
    float | None,
    typer.Option(metavar="N", min=1e-4, max=1, help="With --power: the difference in accuracy to see; default: 0.01."),
]


def show(
    configuration: Configuration,
    number: Annotated[int, typer.Option("--number", "-n", metavar="N", min=1, help="Number of examples.")] = 2,
) -> None:
    """Print encoded examples with their segments in colour, and the tokens that each stage trains with their weights.

    Where there are no colours, segments are named and the tokens are marked. It also works while the run is trained.
    For trained stages, also print how many stored weights they have changed, and how much of the update is left after
    rounding.
    """
    config = load_run_config(configuration)
    from sftkey_dist.models.load import load_tokenizer
    from sftkey_dist.pipeline.prepare import prepare as prepare_run
    from sftkey_dist.pipeline.rounding import stages_in_words
    from sftkey_dist.pipeline.run_plan import plan_run
    from sftkey_dist.report.segments import TRAINED_LEGEND, colour_segments, mark_trained, stage_weights

    with _in_use_or_locked(RunDir(config.run_dir)) as is_in_use:
        preparation = prepare_run(config, keeps_records=not is_in_use)
    has_colours = console.color_system is not None and not console.no_color
    console.print(TRAINED_LEGEND, soft_wrap=True, markup=False)
    tokenizer = load_tokenizer(preparation.model_dir, config.model.trust_remote_code)
    for planned in plan_run(config, preparation).strategies:
        strategy = planned.strategy
        store = preparation.stores[strategy.form]
        for index in range(min(number, len(store))):
            ids, segments = store.example(index)
            console.rule(visible(Text(f"{strategy.name}: {store.example_ids([index])[0]}")))
            text = colour_segments(tokenizer, ids, segments, store.segment_names, has_colours=has_colours)
            console.print(visible(text), soft_wrap=True)
            weight = 1.0 if store.loss_weights is None else float(store.loss_weights[index])
            for name, weights in stage_weights(strategy):
                marked = mark_trained(tokenizer, ids, segments, weights, name, weight)
                console.print(visible(marked), soft_wrap=True)
        for line in stages_in_words(planned.stages):
            console.print(line, soft_wrap=True, markup=False)


def plan(
    configuration: Configuration,
    ranks: Ranks = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Number of steps of each stage to plan.")] = 50,
    nodes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of nodes; if given, estimate memory, time and cost.")
    ] = None,
    gpus_per_node: Annotated[
        int, typer.Option(metavar="N", min=1, help="Accelerators, and therefore ranks, per node.")
    ] = 8,
    gpu: Annotated[str, typer.Option(help="Type: b200-180g, h200-141g, h100-80g, a100-80g, a100-40g or l40s-48g.")] = (
        _USUAL_GPU
    ),
    network_gbps: Annotated[
        float, typer.Option(metavar="N", min=0.1, help="Network bandwidth per node, in Gbit/s.")
    ] = 400.0,
    transport: Annotated[Literal["rdma", "tcp"], typer.Option(help="Transport that NCCL uses between nodes.")] = "rdma",
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(metavar="N", min=0, help="Price per accelerator and hour, to estimate the cost.")
    ] = None,
    power: Annotated[
        bool, typer.Option("--power", help="Only show how many seeds and test questions a comparison needs.")
    ] = False,
    difference: Difference = None,
) -> None:
    """Show how evenly each stage loads any number of ranks and, with --nodes, what it needs on a cluster.

    tokens, cost and loss: maximum over the ranks divided by the mean, 1 is perfectly balanced; density: share of the
    token budget that is used; waiting: share of a step in which ranks wait for the slowest one. With --nodes, memory,
    time and cost are estimated from the model's configuration, and the exit code is 1 if the run would be refused
    there. Prepares the data if necessary, but loads no weights and trains nothing. It also works while the run is
    trained.

    With --power, show how many seeds and test questions it takes to see a difference in accuracy with 80 % power,
    estimated from the finished run or study that the configuration names.
    """
    if power:
        if ranks is not None or nodes is not None:
            raise ConfigError("--power plans seeds and questions only; leave out --ranks and --nodes")
        _show_power(configuration, _ONE_POINT if difference is None else difference)
        return
    if difference is not None:
        raise ConfigError("--difference belongs to --power; add --power, or leave it out")
    if nodes is None and (gpu != _USUAL_GPU or price_per_gpu_hour is not None):
        raise ConfigError("--gpu and --price-per-gpu-hour describe the cluster of --nodes; add --nodes")
    config = load_run_config(configuration)
    usual_ranks = nodes * gpus_per_node if nodes else config.cluster.num_workers
    usual_data_ranks = max(1, usual_ranks // config.training.sequence_parallel_ranks)
    data_ranks = parse_numbers("--ranks", ranks) if ranks else [usual_data_ranks]
    from sftkey_dist.capacity.hardware import Cluster, find_accelerator

    if nodes is None:
        _show_plan(config, data_ranks, steps, None)
    else:
        device = find_accelerator(gpu)
        cluster = Cluster(nodes, gpus_per_node, device, network_gbps, price_per_gpu_hour, transport=transport)
        _show_plan(config, data_ranks, steps, cluster)


def _show_plan(config: "RunConfig", data_ranks: list[int], steps: int, cluster: "Cluster | None") -> None:
    from sftkey_dist.console import progress_when_known
    from sftkey_dist.pipeline.prepare import prepare as prepare_run
    from sftkey_dist.pipeline.preview import preview_run, warnings_about
    from sftkey_dist.pipeline.run_plan import plan_run
    from sftkey_dist.report.tables import balance_table

    with _in_use_or_locked(RunDir(config.run_dir)) as is_in_use, progress_when_known("planning") as progress:
        run_plan = plan_run(config, prepare_run(config, needs_weights=False, keeps_records=not is_in_use))
        previews, files = preview_run(run_plan, data_ranks, steps, progress)
    for stage in previews:
        looked_at = min(steps, stage.num_steps)
        console.print(balance_table(f"{stage.name}: {looked_at:,} of {stage.num_steps:,} steps", stage.rows))
    for warning in warnings_about(previews):
        console.print(f"check the plan: {warning}", soft_wrap=True, markup=False)
    for strategy, planned in ((of.name, stage) for of in run_plan.strategies for stage in of.stages):
        if planned.shared_with is not None:
            shared = f"{strategy} {planned.stage.name}: the stage of {planned.shared_with}, which is trained once"
            console.print(shared, soft_wrap=True, markup=False)
    for planned in run_plan.stages:
        if planned.stage.data is not None:
            console.print(
                f"{planned.name}: planned with the lengths of the references; its responses are sampled after the "
                f"stage before it, which takes time that is not planned; the number of steps stays",
                soft_wrap=True,
                markup=False,
            )
    fits = True
    if cluster is not None:
        fits, file = _show_capacity(run_plan, cluster, steps)
        files.append(file)
    for file in files:
        console.print(f"written: {as_relative(file)}", soft_wrap=True, markup=False)
    if not fits:
        raise typer.Exit(1)


@contextmanager
def _in_use_or_locked(run: RunDir) -> Iterator[bool]:
    """Lock a run that is only looked at, unless a command is using it, which then writes the records itself.

    Yields:
        Whether a command is using the run.
    """
    is_in_use = find_writer(run.lock) is not None
    with nullcontext() if is_in_use else locked_run(run):
        yield is_in_use


def preflight(configuration: Configuration) -> None:
    """Check every node of the cluster that the configuration names, and print what was measured.

    Versions, clock, memory, the run directory (shared, writable, how fast), the network from the driver, a matrix
    product on a core and on each accelerator, and an all-reduce between the nodes. Once the nodes are there, this takes
    some seconds; a node that does not answer is waited for 18 seconds. Nothing is trained. `train` and `run` do the
    same before the first stage if the cluster has several nodes.
    """
    config = load_run_config(configuration)
    from sftkey_dist.cluster.connection import connected
    from sftkey_dist.pipeline.preflight import check

    read = [path for path in (config.data.store_dir, config.model.path) if path is not None and Path(path).is_dir()]
    with folder_kept_if_used(config.run_dir), connected(config.cluster, config.most_workers):
        check(config.run_dir, [Path(path) for path in read], config.cluster, with_table=True)


def _show_power(configuration: list[str], difference: float) -> None:
    files, overrides = separate_overrides(configuration)
    study = load_study(files, overrides) if is_study(files) else None
    run_dir = load_run_config(configuration).run_dir if study is None else study.folder
    from sftkey_dist.pipeline.power import plan_run_power, plan_study_power
    from sftkey_dist.report.power import conclusion, power_notes, power_table

    found = plan_run_power(run_dir, difference) if study is None else plan_study_power(study, difference)
    console.print(power_table(found))
    for line in (*power_notes(found), conclusion(found)):
        console.print(line, soft_wrap=True, markup=False)


def _show_capacity(plan: "RunPlan", cluster: "Cluster", steps: int) -> tuple[bool, Path]:
    """Print what the stages need on a cluster; returns whether it is large enough, and the file that is written."""
    from sftkey_dist.capacity import capacity_table, total_in_words
    from sftkey_dist.pipeline.capacity import plan_capacity
    from sftkey_dist.pipeline.fits import Room, problems_of, sizes_of_judges
    from sftkey_dist.report.numbers import in_millions_or_billions

    size, stages, file = plan_capacity(plan, cluster, steps)
    device = cluster.accelerator
    parameters = in_millions_or_billions(size.parameters)
    where = f"{parameters} parameters on {cluster.nodes} x {cluster.gpus_per_node} {device.name}"
    for stage in stages:
        console.print(capacity_table(f"{stage.name}: {where}", stage, device.memory_gib))
    if len(stages) > 1:
        console.print(total_in_words([stage.estimate for stage in stages]), soft_wrap=True, markup=False)
    room = Room(
        device.memory_gib,
        judges=sizes_of_judges(plan.config, only_local=True),
        gpus_per_node=cluster.gpus_per_node,
        most_gpus_of_a_node=cluster.gpus_per_node,
    )
    problems = problems_of(plan.config, size.parameters, stages, room)
    for problem in problems:
        console.print(Text.assemble(("would be refused", "red"), " ", problem), soft_wrap=True)
    return not problems, file
