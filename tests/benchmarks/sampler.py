"""The plan against published ways to deal examples to ranks: how level ranks are, what that costs, and how fast it is.

Every side gets the same draws. Ranks then cut their examples into rows within the token budget; the time of a step is
simulated by the cost model in lockstep, Σ over micro-batches of the slowest rank, nobody padding anything.
"""

import heapq
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from rich.table import Table

from sftkey_dist.sampler import CostModel, StepPlanner
from sftkey_dist.sampler.alternatives import as_drawn, longest_first, rows_in_order
from sftkey_dist.sampler.level import EMPTY
from sftkey_dist.sampler.stats import loads, max_over_mean
from tests.benchmarks.figures import Figure, arguments, console, publish

COST = CostModel.for_decoder(3584, 18944, 28, 4, 128)  # Qwen2.5-7B
BUDGET_TOKENS = 1024
WEIGHTS = (0.0, 1.0)
MAX_TOKENS = 32_768

Layout = np.ndarray
Side = Callable[[np.ndarray, np.ndarray, int, int], Layout]


def gsm8k_counts(data: Path, model: Path) -> np.ndarray:
    """int [N, 2]: tokens outside and inside the answer, of every training example."""
    return real_counts({"adapter": "gsm8k", "path": str(data / "gsm8k" / "train.jsonl")}, model)


def openbookqa_counts(data: Path, model: Path) -> np.ndarray:
    return real_counts({"adapter": "openbookqa", "path": str(data / "openbookqa" / "train.jsonl")}, model)


def real_counts(source: dict[str, str], model: Path) -> np.ndarray:
    from sftkey_dist.config.data import DataConfig, SourceConfig  # noqa: PLC0415 (imports datasets)
    from sftkey_dist.config.prompt import PromptConfig  # noqa: PLC0415
    from sftkey_dist.contract import Form, ResponseContract, Segment  # noqa: PLC0415
    from sftkey_dist.data.building.task import Encoding  # noqa: PLC0415
    from sftkey_dist.data.prepare import prepare_store  # noqa: PLC0415

    contract = ResponseContract(
        segments=(
            Segment(name="reasoning", tag="Thinking", required=False),
            Segment(name="answer", tag="Answer", key=True, delimiter="\n#### "),
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        data = DataConfig(
            train=SourceConfig.model_validate(source),
            test=SourceConfig(adapter="decision_memos", split="test", limit=1),
            store_dir=Path(folder),
        )
        store = prepare_store("train", data, Encoding(Form.TAGGED, contract, PromptConfig(), 1024, model, False))
        answers = np.array(store.segment_counts[:, store.segment_names.index("answer")])
        return np.stack([store.segment_counts.sum(axis=1) - answers, answers], axis=1)


def heavy_tailed_counts(num_examples: int, longest: int) -> np.ndarray:
    """60 % labels of 1-3 tokens, 40 % log-normal answers to 400; prompts log-normal up to ``longest`` in all."""
    stream = np.random.default_rng(0)
    is_label = stream.random(num_examples) < 0.6
    long = np.clip(stream.lognormal(4, 1, num_examples), 1, 400).astype(int)
    answers = np.where(is_label, stream.integers(1, 4, num_examples), long)
    prompts = np.clip(stream.lognormal(5.5, 0.9, num_examples), 16, longest - 400).astype(int)
    return np.stack([prompts, answers], axis=1)


def karmarkar_karp(lengths: np.ndarray, ranks: int) -> list[list[int]]:
    """The largest differencing method (Karmarkar, Karp 1982) on total tokens."""
    ties = count()
    heap = [
        (-int(length), next(ties), [(int(length), [i]), *((0, list[int]()) for _ in range(ranks - 1))])
        for i, length in enumerate(lengths)
    ]
    heapq.heapify(heap)
    while len(heap) > 1:
        (_, _, one), (_, _, other) = heapq.heappop(heap), heapq.heappop(heap)
        merged = [(a + b, x + y) for (a, x), (b, y) in zip(one, reversed(other), strict=True)]
        merged.sort(key=lambda part: -part[0])
        heapq.heappush(heap, (merged[-1][0] - merged[0][0], next(ties), merged))
    return [content for _, content in heap[0][2]]


def first_fit_decreasing(lengths: np.ndarray, ranks: int) -> list[list[int]]:
    """First-fit decreasing packing into rows of the budget, rows dealt in turn: packers that know no ranks."""
    rows: list[list[int]] = []
    room: list[int] = []
    for position in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[position])
        row = next((i for i, left in enumerate(room) if left >= length), None)
        if row is None:
            rows.append([])
            room.append(max(BUDGET_TOKENS, length))
            row = len(rows) - 1
        rows[row].append(position)
        room[row] -= length
    return [[i for row in rows[rank::ranks] for i in row] for rank in range(ranks)]


def batch_rebalance(lengths: np.ndarray, ranks: int, num_rows: int) -> Layout:
    """transformers' ``BatchRebalanceSampler``, which lays its own micro-batches."""
    from transformers.trainer_pt_utils import BatchRebalanceSampler  # noqa: PLC0415 (imports torch)

    sampler = BatchRebalanceSampler(lengths.tolist(), len(lengths), ranks, num_rows, shuffle=False)
    laid = sampler._assign(list(range(len(lengths))), lengths.tolist())
    layout = np.full((ranks, num_rows, max(len(row) for rank in laid for row in rank)), EMPTY, dtype=np.int64)
    for rank, rows in enumerate(laid):
        for number, row in enumerate(rows):
            layout[rank, number, : len(row)] = row
    return layout


def length_grouped(lengths: np.ndarray, ranks: int) -> list[list[int]]:
    """What transformers' ``LengthGroupedSampler`` makes of a draw: sorted, dealt in turn."""
    order = np.argsort(-lengths, kind="stable").tolist()
    return [order[rank::ranks] for rank in range(ranks)]


ALTERNATIVES = {
    "DistributedSampler": as_drawn,
    "length-grouped": length_grouped,
    "LPT on tokens": longest_first,
    "Karmarkar-Karp on tokens": karmarkar_karp,
    "first-fit decreasing": first_fit_decreasing,
}


class Measured:
    """Figures of every side on the same draws."""

    def __init__(self, cost: CostModel) -> None:
        self._cost = cost
        self.tokens: dict[str, list[float]] = {}
        self.answers: dict[str, list[float]] = {}
        self.lockstep: dict[str, list[float]] = {}
        self.seconds: dict[str, list[float]] = {}
        self.fullest_row: dict[str, list[float]] = {}

    def add(self, side: str, layout: Layout, lengths: np.ndarray, answers: np.ndarray) -> None:
        """Count one step; loads stand in units of the least that any assignment of the draw could reach."""
        costs = self._cost(lengths)
        per_row, cost, answer = (loads(layout, values) for values in (lengths, costs, answers))
        ranks = len(layout)
        self.tokens.setdefault(side, []).append(per_row.sum(axis=1).max() / bound(lengths, ranks))
        self.answers.setdefault(side, []).append(answer.sum(axis=1).max() / bound(answers, ranks))
        self.lockstep.setdefault(side, []).append(cost.max(axis=0).sum() / bound(costs, ranks))
        self.seconds.setdefault(side, []).append(float(cost.max(axis=0).sum()))
        self.fullest_row.setdefault(side, []).append(max_over_mean(per_row))


def bound(values: np.ndarray, ranks: int) -> float:
    """No assignment of these integers has a smaller largest load."""
    return float(max(-(-int(values.sum()) // ranks), values.max()))


def measure(
    counts: np.ndarray, ranks: int, per_rank: int, budget: int, steps: int, kk: bool = True, cost: CostModel = COST
) -> Measured:
    """Lay steps drawn by our plan, by ourselves and by the others."""
    batch = ranks * per_rank
    draw = np.random.default_rng(1).integers(0, len(counts), batch * steps)
    drawn = counts[draw]
    planner = planner_of(drawn, ranks, per_rank, budget, cost)
    measured = Measured(cost)
    for plan in planner.plans():
        members = np.array(plan.example_indices)
        lengths, answers = drawn[members].sum(axis=1), drawn[members, 1]
        measured.add("sftkey_dist", _positions(plan.layout, members), lengths, answers)
        shuffled = np.random.default_rng(plan.step).permutation(batch)
        lengths, answers = lengths[shuffled], answers[shuffled]
        for name, deal in ALTERNATIVES.items():
            if kk or deal is not karmarkar_karp:
                measured.add(name, rows_in_order(deal(lengths, ranks), lengths, budget), lengths, answers)
        measured.add("BatchRebalanceSampler", batch_rebalance(lengths, ranks, plan.layout.shape[1]), lengths, answers)
    return measured


def planner_of(counts: np.ndarray, ranks: int, per_rank: int, budget: int, cost: CostModel) -> StepPlanner:
    """The plan of one epoch."""
    return StepPlanner(
        counts,
        WEIGHTS,
        seed=0,
        global_batch_size=ranks * per_rank,
        num_epochs=1,
        max_steps=None,
        look_ahead_steps=4,
        data_ranks=ranks,
        micro_batch_tokens=budget,
        cost=cost,
    )


def _positions(layout: Layout, members: np.ndarray) -> Layout:
    return np.where(layout >= 0, np.searchsorted(members, layout), EMPTY)


def show(title: str, measured: Measured) -> None:
    table = Table(title=title)
    for heading in ("side", "tokens / bound", "p99", "answers / bound", "p99", "lockstep cost / bound", "step time"):
        table.add_column(heading, justify="left" if heading == "side" else "right")
    ours = np.mean(measured.seconds["sftkey_dist"])
    for side, tokens in measured.tokens.items():
        answers, lockstep = measured.answers[side], measured.lockstep[side]
        values = [np.mean(tokens), p99(tokens), np.mean(answers), p99(answers), np.mean(lockstep)]
        table.add_row(side, *(f"{v:.3f}" for v in values), f"{np.mean(measured.seconds[side]) / ours:.3f} x ours")
    console.print(table)


def p99(values: Sequence[float]) -> float:
    return float(np.quantile(values, 0.99))


def balance_figures(name: str, measured: Measured, goals: tuple[float, float]) -> dict[str, Figure]:
    mean_goal, p99_goal = (f"<= {goal}" for goal in goals)
    figures = {}
    sides = {"tokens": measured.tokens, "answers": measured.answers, "lockstep cost": measured.lockstep}
    for what, values in sides.items():
        ours = values["sftkey_dist"]
        best = min((np.mean(v), side) for side, v in values.items() if side != "sftkey_dist")
        figures[f"{name} {what} / bound, mean"] = Figure(
            float(np.mean(ours)), "x", mean_goal, (min(ours), max(ours)), f"best other {best[0]:.3f} ({best[1]})"
        )
        figures[f"{name} {what} / bound, p99"] = Figure(p99(ours), "x", p99_goal)
    return figures


def speed_figures(name: str, measured: Measured) -> dict[str, Figure]:
    ours = np.array(measured.seconds["sftkey_dist"])
    random = np.array(measured.seconds["DistributedSampler"]) / ours
    others = {side: np.array(v) / ours for side, v in measured.seconds.items() if side != "sftkey_dist"}
    best = min(others, key=lambda side: float(others[side].mean()))
    return {
        f"{name} simulated step time, random order / ours": Figure(
            float(random.mean()), "x", ">= 1.25", (random.min(), random.max())
        ),
        f"{name} simulated step time, best other / ours": Figure(
            float(others[best].mean()), "x", ">= 1", (others[best].min(), others[best].max()), best
        ),
    }


def plan_epoch(num_examples: int, ranks: int, per_rank: int, budget: int) -> tuple[float, float]:
    """Seconds and peak GiB of planning one epoch on one core, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.sampler", "--plan", *map(str, (num_examples, ranks, per_rank))]
    done = subprocess.run([*command, str(budget)], capture_output=True, text=True, check=True)
    seconds, gib = done.stdout.split()
    return float(seconds), float(gib)


def plan_here(num_examples: int, ranks: int, per_rank: int, budget: int) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    counts = heavy_tailed_counts(num_examples, 4096).astype(np.int32)
    start = time.perf_counter()
    planner = planner_of(counts, ranks, per_rank, budget, COST)
    for _ in planner.plans():
        pass
    seconds = time.perf_counter() - start
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def planning_figures(quick: bool) -> dict[str, Figure]:
    size, repeats = (200_000, 1) if quick else (1_840_000, 3)
    runs = [plan_epoch(size, 1024, 8, 4096) for _ in range(repeats)]
    seconds, gib = sorted(run[0] for run in runs), max(run[1] for run in runs)
    small, large = 10_000, 100_000 if quick else 1_000_000
    growth = plan_epoch(large, 64, 8, 4096)[0] / plan_epoch(small, 64, 8, 4096)[0]
    n_log_n = large * np.log(large) / (small * np.log(small))
    return {
        f"planning {size:,} examples for 1,024 ranks, one core": Figure(
            seconds[len(seconds) // 2], "s", "<= 10", (seconds[0], seconds[-1])
        ),
        "peak memory of planning": Figure(gib, "GiB", "<= 1.5", against="with the counts"),
        f"growth {small:,} to {large:,} examples / n log n": Figure(growth / n_log_n, "x", "<= 1"),
    }


def main() -> None:
    def options(parser) -> None:
        parser.add_argument(
            "--data", type=Path, default=Path("../shared/data"), help="folder with gsm8k/ and openbookqa/"
        )
        parser.add_argument("--model", type=Path, default=Path("models/smollm2-135m"), help="folder with a tokenizer")
        parser.add_argument("--plan", nargs=4, type=int, metavar="N", help="plan an epoch once, in this process")

    args = arguments(__doc__, options)
    if args.plan:
        plan_here(*args.plan)
        return
    steps = 5 if args.quick else 60
    sets = {
        "GSM8K": (gsm8k_counts(args.data, args.model), BUDGET_TOKENS),
        "OpenBookQA": (openbookqa_counts(args.data, args.model), BUDGET_TOKENS),
        "heavy-tailed": (heavy_tailed_counts(100_000, 4096), 4096),
        "heavy-tailed to 32k": (heavy_tailed_counts(100_000, MAX_TOKENS), MAX_TOKENS),
    }
    figures: dict[str, Figure] = {}
    for name, (counts, budget) in sets.items():
        for ranks in (2, 8, 64, 256, 1024):
            few = max(4, min(steps, steps * 64 // ranks))
            measured = measure(counts, ranks, 8, budget, few, kk=ranks <= 256)
            show(f"{name}, {ranks} ranks x 8 examples, {few} steps, rows of {budget:,} tokens", measured)
            if ranks == 64:
                figures |= speed_figures(f"{name} 64x8", measured)
                if budget == BUDGET_TOKENS:
                    figures |= balance_figures(f"{name} 64x8", measured, (1.02, 1.04))
                else:  # tokens are what is levelled where cost is linear in them
                    linear = measure(counts, ranks, 8, budget, few, cost=CostModel(1, 0))
                    figures |= balance_figures(f"{name} 64x8, linear cost", linear, (1.02, 1.05))
    wide = measure(sets["GSM8K"][0], 64, 32, BUDGET_TOKENS, steps // 3 + 1)
    fullest = wide.fullest_row["sftkey_dist"]
    figures["GSM8K 64x32 fullest micro-batch / mean"] = Figure(
        float(np.mean(fullest)), "x", "<= 1.03", (min(fullest), max(fullest))
    )
    figures |= planning_figures(args.quick)
    publish("sampler", figures, args.json)


if __name__ == "__main__":
    main()
