"""One page of what was measured, made from the JSON files of the other verbs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = "README.md"
MFU_GOAL, PEER_GOAL = 0.45, 1.3
"""Of the peak at 1.5B and 3B parameters, and times the rate of TRL's best setting."""


def write_page(results: Path) -> Path:
    """Write the page beside the files; what was not measured is named as such."""
    found = {file.stem: json.loads(file.read_text()) for file in sorted(results.glob("*.json"))}
    sections = {
        "probe": ("The machine", _probe),
        "exact": ("Layouts against float32 on one CPU rank", _exact),
        "attention": ("Attention over a packed row", _attention),
        "throughput": ("Throughput", _throughput),
        "memory": ("Memory of a rank", _throughput),
        "hand_off": ("What stage 2 learns at 5e-7, by how stage 1 hands on", _hand_off),
        "two_ranks": ("Two ranks over gloo on one device", _two_ranks),
    }
    lines = ["# Measured on an accelerator", ""]
    for verb, (title, section) in sections.items():
        lines += [f"## {title}", "", f"`python -m tests.accelerator {verb}`", ""]
        if verb not in found:
            lines += ["Not measured.", ""]
            continue
        if note := found[verb].get("note"):
            lines += [note, ""]
        lines += [*section(found[verb]), ""]
    page = results / PAGE
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return page


def _table(heads: list[str], rows: list[list[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row) + " |"


def _probe(found: dict[str, Any]) -> Iterator[str]:
    rows = [
        ["device", f"{found['device']}, driver {found['driver']}, CUDA {found['cuda']}, NCCL {found['nccl']}"],
        ["packages", ", ".join(f"{name} {version}" for name, version in found["packages"].items())],
        [
            "matrix products",
            f"{found['bfloat16_tflops']:.3g} TFLOP/s in bfloat16, {found['float32_tflops']:.3g} in float32",
        ],
        ["copies in its memory", f"{found['copy_gb_per_second']:.4g} GB/s, read and written"],
        ["compiled at import", ", ".join(found["extensions_compiled_at_import"]) or "nothing"],
        ["gloo between two ranks", ", ".join(f"{n}: {r}" for n, r in found["gloo_between_two_ranks"].items())],
    ]
    if "snapshot_gb_per_second" in found:
        rates = ", ".join(f"{way} {rate:.3g} GB/s" for way, rate in found["snapshot_gb_per_second"].items())
        rows.append(["snapshots to the host", rates])
    return _table(["", ""], rows)


def _exact(found: dict[str, Any]) -> Iterator[str]:
    rows = [
        [
            r["layout"],
            r["precision"],
            *(r.get(of, "-") for of in ("loss", "grad_norm")),
            r.get("problem", _yes(r["passed"])),
        ]
        for r in found["layouts"]
    ]
    yield from _table(["layout", "precision", "largest deviation of a loss", "of a gradient norm", "passed"], rows)
    yield ""
    left = found["bytes_left_after_closing"]
    yield f"A resumed stage deviates by {found['resumed']:.2g}; {left} bytes stay after closing."


def _attention(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{found['row_tokens']} tokens, {found['heads']} query and {found['kv_heads']} key heads of "
        f"{found['head_dim']}; forward and backward pass of one layer in milliseconds, and the largest relative error "
        f"of output and gradients against float64."
    )
    yield ""
    ways = list(found["rows"][0].keys() - {"example_tokens", "examples"})
    ways.sort()
    heads = ["tokens an example", "examples", *(f"{way}: ms" for way in ways), *(f"{way}: error" for way in ways)]
    rows = [
        [r["example_tokens"], r["examples"], *(r[way]["ms"] for way in ways), *(r[way]["error"] for way in ways)]
        for r in found["rows"]
    ]
    yield from _table(heads, rows)


def _throughput(found: dict[str, Any]) -> Iterator[str]:
    rows = [
        [
            f"{case}, {name}",
            round(stage["tokens_per_second"]),
            "-" if stage["mfu"] is None else f"{stage['mfu']:.1%}",
            stage["step_seconds"],
            f"{stage['device_busy_share']:.0%}" if "device_busy_share" in stage else "-",
            "-" if stage["watch_cost_seconds"] is None else stage["watch_cost_seconds"],
            stage.get("allocated_gib", "-"),
            stage.get("reserved_gib", "-"),
            stage["predicted_tensors_gib"],
        ]
        for case, stages in found["rows"].items()
        if "problem" not in stages
        for name, stage in stages.items()
    ]
    heads = [
        "case",
        "tokens/s",
        "MFU",
        "seconds a step",
        "device computes",
        "seconds to watch one",
        "allocated GiB",
        "reserved GiB",
        "predicted GiB",
    ]
    yield from _table(heads, rows)
    for case, stages in found["rows"].items():
        if "problem" in stages:
            yield ""
            yield f"{case} failed: {stages['problem']}."
    yield from _beside_goals(found)
    yield from _kernels(found)


def _beside_goals(found: dict[str, Any]) -> Iterator[str]:
    """The rates of the peer, and whether the goals are reached."""
    best = max(
        (stage["mfu"] or 0.0 for of in found["rows"].values() if "problem" not in of for stage in of.values()),
        default=0.0,
    )
    if best:
        yield ""
        yield f"The highest utilisation is {best:.1%}; the goal of {MFU_GOAL:.0%} is {_reached(best >= MFU_GOAL)}."
    for way, name in (("deepspeed", "TRL with ZeRO-3"), ("alone", "TRL without DeepSpeed")):
        if rate := found.get(f"trl_{way}_tokens_per_second"):
            yield ""
            yield f"{name}: {rate:.0f} tokens/s."
        elif problem := found.get(f"trl_{way}") or found.get("trl"):
            yield ""
            yield f"There is no figure of {name}: {problem}."
    if ratio := found.get("ours_over_trl"):
        yield ""
        yield (
            f"Ours is {ratio:.2f} times the faster of them in stage 1; the goal of {PEER_GOAL:g} is "
            f"{_reached(ratio >= PEER_GOAL)}."
        )


def _reached(is_reached: bool) -> str:
    return "reached" if is_reached else "not reached"


def _kernels(found: dict[str, Any]) -> Iterator[str]:
    """What the device computed longest in a micro-batch of each case's first stage."""
    for case, stages in found["rows"].items():
        profiled = next(iter(stages.values())) if "problem" not in stages else {}
        if kernels := profiled.get("kernels"):
            yield ""
            yield f"{case}: {profiled['kernel_launches']} launches in a micro-batch of stage 1, of which"
            yield ""
            rows = [[kernel["ms"], kernel["launches"], f"`{kernel['name']}`"] for kernel in kernels]
            yield from _table(["milliseconds", "launches", "kernel"], rows)


def _hand_off(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{found['model_parameters']:,} parameters, {found['steps']} steps at {found['learning_rate']:g}; the answer's "
        f"nll of the exported folders in float32 arithmetic."
    )
    yield ""
    rows = [
        [name, row["start"], row["end"], row["gain"], f"{row['share_of_float32']:.0%}", f"{row['surviving_share']:.0%}"]
        for name, row in found["rows"].items()
    ]
    yield from _table(["stage 2", "before", "after", "gain", "of float32's gain", "of the update survives"], rows)


def _two_ranks(found: dict[str, Any]) -> Iterator[str]:
    yield from _exact(found["exact"])
    yield ""
    yield from _hand_off(found["hand_off"])


def _yes(passed: bool) -> str:
    return "yes" if passed else "no"
