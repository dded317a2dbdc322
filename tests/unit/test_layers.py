"""The folders are the architecture: who may import whom, checked on the imports themselves."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sftkey_dist"
ALLOWED = {
    "deepspeed": {"training.engine.library"},
    "mlflow": {
        "tracking.mlflow_client",
        "tracking.mlflow_entities",
        "tracking.mlflow_metrics",
        "tracking.mlflow_models",
        "tracking.mlflow_store",
    },
    "ray": {
        "cluster.connection",
        "cluster.host_process",
        "cluster.place",
        "cluster.probe",
        "cluster.private",
        "jobs.client",
        "training.workers.worker",
        "training.workers.launch",
        "training.workers.process_group",
        "training.workers.ray_trainer",
        "training.workers.worker_group",
        "training.workers.failures",
        "evaluation.capabilities.fan_out",
        "evaluation.generation.fan_out",
        "evaluation.generation.spread",
        "evaluation.judge.asking",
        "evaluation.judge.local",
        "evaluation.judge.served",
        "data.building.on_ray",
        "preflight.nodes",
        "tracking.ray_sink",
        "pipeline.tuning.tune",
        "pipeline.tuning.plan",
        "pipeline.tuning.trial",
    },
    "lm_eval": {"evaluation.capabilities.harness"},
    "matplotlib": {"report.plots", "report.study.plots", "report.slide"},
    "tensorboardX": {"tracking.tensorboard_sink"},
    "wandb": {"tracking.wandb_sink"},
}
FORBIDDEN = {
    "contract": {"torch", "ray", "transformers", "datasets"},
    "config": {"torch", "ray", "transformers", "datasets"},
    "sampler": {"torch", "ray", "transformers", "datasets"},
    "report": {"torch", "ray", "transformers", "mlflow"},
}


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(file: Path) -> set[str]:
    """Absolute names, `from a import b` as `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write imports absolutely"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


MODULES = {module_name(file): imports_of(file) for file in PACKAGE.rglob("*.py")}


def internal(imports: set[str]) -> set[str]:
    """Modules of the package that a set of imported names belongs to."""
    names = {name.removeprefix("sftkey_dist.") for name in imports if name.startswith("sftkey_dist.")}
    return {name if name in MODULES else name.rpartition(".")[0] for name in names}


@pytest.mark.parametrize("library", ALLOWED)
def test_each_engine_is_imported_in_its_named_places_only(library):
    users = {name for name, imports in MODULES.items() if any(i.split(".")[0] == library for i in imports)}
    assert users == ALLOWED[library]


def test_only_the_factory_leads_to_the_engine_that_uses_deepspeed():
    """Everything else is written against the protocol, and never loads DeepSpeed by it."""
    heavy = {name for name, imports in MODULES.items() if "training.engine.library" in internal(imports)}
    heavy |= {"training.engine.library"}
    assert heavy == {f"training.engine.{name}" for name in ("factory", "library", "optimizer", "state", "zero")}
    users = {name for name, imports in MODULES.items() if internal(imports) & heavy and name not in heavy}
    assert users == {"training.loop", "training.workers.worker"}
    for name in users:
        assert internal(MODULES[name]) & heavy == {"training.engine.factory"}, name


def test_only_in_rays_own_processes_a_wait_for_ray_cannot_be_ended_by_a_signal():
    """Those of workers and controllers; everywhere else, `ray.get` and `ray.wait` are called by `interruptible`."""
    sources = {module_name(file): file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")}
    calling = {name for name, source in sources.items() if re.search(r"\bray\.(get|wait)\(", source)}
    assert calling == {"training.workers.ray_trainer", "training.workers.worker"}


def test_no_import_cycles():
    graph = {name: internal(imports) - {name} for name, imports in MODULES.items()}
    list(TopologicalSorter(graph).static_order())


def test_evaluation_never_imports_training_and_packages_below_never_import_the_pipeline():
    for name, imports in MODULES.items():
        package, used = name.split(".")[0], {i.split(".")[0] for i in internal(imports)}
        if package == "evaluation":
            assert "training" not in used, name
        if package not in ("", "pipeline", "cli"):  # the package itself names its public interface
            assert "pipeline" not in used, name
        if package in ("config", "contract", "sampler", "data"):
            assert not used & {"training", "evaluation", "tracking", "report" if package != "data" else ""}, name


@pytest.mark.parametrize("package", FORBIDDEN)
def test_light_packages_load_no_heavy_library(package):
    modules = [name for name in MODULES if name == package or name.startswith(f"{package}.")]
    assert modules
    script = "import sys\n" + "\n".join(f"import sftkey_dist.{name}" for name in modules)
    script += f"\nprint(sorted({FORBIDDEN[package]!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


HEAVY = {
    "torch",
    "ray",
    "transformers",
    "deepspeed",
    "openai",
    "mlflow",
    "peft",
    "datasets",
    "matplotlib",
    "scipy.stats",
    "typer",
}
LOADS: dict[str, dict[str, set[str]]] = {
    "settings": {
        "run_dir.artifacts": set(),
        "training.job": set(),
        "pipeline.run_plan": set(),
        "endpoint": set(),
        "evaluation.settings": set(),
        "tracking": set(),
        "cli": {"typer"},
    },
    "ranks": {
        "training.engine": {"torch", "transformers"},
        "training.engine.deepspeed_config": {"torch", "transformers"},
        "training.steps.step": {"torch", "transformers", "datasets"},
        "training.validation.observer": {"torch", "transformers", "datasets"},
        "training.loop": {"torch", "transformers", "deepspeed", "datasets"},
    },
    "tasks of Ray": {
        "training.workers.process_group": set(),
        "training.workers.worker": {"ray"},
        "training.workers.ray_trainer": {"ray"},
        "evaluation.generation.fan_out": {"torch", "ray"},
        "pipeline.evaluate": {"torch", "ray", "transformers", "datasets"},
    },
}
"""What the modules that every process of a run begins with may load, of what takes a tenth of a second or more.

One process imports the modules of a kind one after another: whatever one of them may load, the next may load too. A
rank that something else launches, such as torchrun, needs neither Ray nor MLflow nor the command line.
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOADS)
def test_a_process_loads_no_library_that_it_does_not_need(kind):
    script = "import sys\n" + "\n".join(
        f"import sftkey_dist.{module}\nprint('loaded:', *({HEAVY!r} & set(sys.modules)))" for module in LOADS[kind]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("loaded:")]
    for (module, allowed), loaded in zip(LOADS[kind].items(), lines, strict=True):
        assert set(loaded) <= allowed, module


def test_top_level_holds_only_what_the_design_names():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    folders = {path.split("/")[0] for path in listed.stdout.splitlines() if "/" in path}
    designed = {"sftkey_dist", "launch", "configs", "tests", "docker", "docs", "requirements", ".ci", ".github"}
    assert folders <= designed
