"""The folders are the architecture: who may import whom, checked on the imports themselves."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sftkey_dist"
ALLOWED = {
    "deepspeed": {"training.engine.library"},
    "mlflow": {"tracking.mlflow_client", "tracking.mlflow_store"},
    "ray": {
        "cluster",
        "cluster_probe",
        "private_cluster",
        "jobs.client",
        "training.worker",
        "training.launch",
        "training.worker_group",
        "training.failures",
        "evaluation.generation.fan_out",
        "evaluation.generation.spread",
        "evaluation.judge.asking",
        "evaluation.judge.local",
        "evaluation.judge.served",
        "data.on_ray",
        "preflight.nodes",
    },
    "matplotlib": {"report.plots"},
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
    assert heavy == {f"training.engine.{name}" for name in ("factory", "library", "state", "zero")}
    users = {name for name, imports in MODULES.items() if internal(imports) & heavy and name not in heavy}
    assert users == {"training.loop", "training.worker"}
    for name in users:
        assert internal(MODULES[name]) & heavy == {"training.engine.factory"}, name


def test_no_import_cycles():
    graph = {name: internal(imports) - {name} for name, imports in MODULES.items()}
    list(TopologicalSorter(graph).static_order())


def test_evaluation_never_imports_training_and_rooms_below_never_import_the_pipeline():
    for name, imports in MODULES.items():
        room, used = name.split(".")[0], {i.split(".")[0] for i in internal(imports)}
        if room == "evaluation":
            assert "training" not in used, name
        if room not in ("", "pipeline", "cli"):  # the package itself names its public interface
            assert "pipeline" not in used, name
        if room in ("config", "contract", "sampler", "data"):
            assert not used & {"training", "evaluation", "tracking", "report" if room != "data" else ""}, name


@pytest.mark.parametrize("room", FORBIDDEN)
def test_light_rooms_load_no_heavy_library(room):
    modules = [name for name in MODULES if name == room or name.startswith(f"{room}.")]
    assert modules
    script = "import sys\n" + "\n".join(f"import sftkey_dist.{name}" for name in modules)
    script += f"\nprint(sorted({FORBIDDEN[room]!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_trainer_loads_without_ray_and_mlflow():
    """A rank that something else launches, such as torchrun, needs neither."""
    absent = ["ray", "mlflow", "typer", "matplotlib"]
    script = f"import sys\nsys.modules.update(dict.fromkeys({absent}))\nimport sftkey_dist.training.loop"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
}
LOADS = {
    "cli": set(),
    "run_dir.artifacts": set(),
    "training.job": set(),
    "pipeline.run_plan": set(),
    "endpoint": set(),
    "evaluation.settings": set(),
    "tracking": set(),
    "training.worker": {"ray"},
    "training.engine": {"torch", "transformers"},
    "training.engine.deepspeed_config": {"torch", "transformers"},
    "training.step": {"torch", "transformers", "datasets"},
    "training.observer": {"torch", "transformers", "datasets"},
    "training.loop": {"torch", "transformers", "deepspeed", "datasets"},
    "evaluation.generation.fan_out": {"torch", "ray"},
    "pipeline.evaluate": {"torch", "ray", "transformers", "datasets", "scipy.stats"},
}
"""What the modules that every process of a run begins with may load, of what takes a tenth of a second or more."""


@pytest.mark.slow
@pytest.mark.parametrize("module", LOADS)
def test_a_process_loads_no_library_that_it_does_not_need(module):
    script = f"import sys\nimport sftkey_dist.{module}\nprint(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()[-1].split()) <= LOADS[module]


def test_top_level_holds_only_what_the_design_names():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    folders = {path.split("/")[0] for path in listed.stdout.splitlines() if "/" in path}
    designed = {"sftkey_dist", "launch", "configs", "tests", "docker", "docs", "requirements", ".ci", ".github"}
    assert folders <= designed
