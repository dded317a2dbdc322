"""What cannot fit is refused before the first step, each with its remedy; on fake device sizes."""

import stat
from types import SimpleNamespace

import pytest
import torch

from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.run import RunConfig
from sftkey_dist.errors import ConfigError, ModelError
from sftkey_dist.models import accelerator
from sftkey_dist.models.accelerator import Device, node_devices, require_room
from sftkey_dist.pipeline import fits
from sftkey_dist.pipeline.fits import JudgeSize, Room, accelerator_like, problems_of, require_fit
from sftkey_dist.pipeline.run_plan import RunPlan

SEVENTY_BILLION = 70_600_000_000


def configured(**changes) -> RunConfig:
    base = {
        "run_dir": "runs/x",
        "model": {"path": "./model"},
        "data": {
            "train": {"adapter": "decision_memos", "limit": 9},
            "test": {"adapter": "decision_memos", "split": "test", "limit": 9},
        },
        "cluster": {"num_workers": 32, "gpus_per_worker": 1},
    }
    return RunConfig.model_validate(base | changes)


def stage(
    gib: float,
    smallest_nodes: int | None = None,
    remedy: str | None = None,
    guarding: float | None = None,
    host: float = 1.0,
):
    memory, on_host = SimpleNamespace(total_gib=gib), SimpleNamespace(total_gib=host)
    helping = (remedy, SimpleNamespace(fits=True, host=on_host)) if remedy else None
    guarded = guarding and SimpleNamespace(total_gib=guarding)
    return SimpleNamespace(
        name="sftkey-tag full",
        estimate=SimpleNamespace(memory=memory, guarding=guarded, host=on_host),
        help=helping,
        smallest_nodes=smallest_nodes,
    )


def test_a_70b_that_fits_is_not_refused():
    config = configured(evaluation={"gpus_per_model": 4})
    assert problems_of(config, SEVENTY_BILLION, [stage(72)], Room(79)) == []


def test_training_that_is_too_large_names_the_setting_that_makes_it_fit():
    config = configured(evaluation={"gpus_per_model": 4})
    (problem,) = problems_of(
        config, SEVENTY_BILLION, [stage(100, remedy="training.logit_chunk_positions=1024")], Room(79)
    )
    assert problem.endswith(
        "a rank would need about 100 GiB and an accelerator has 79; set training.logit_chunk_positions=1024"
    )
    (problem,) = problems_of(config, SEVENTY_BILLION, [stage(191, smallest_nodes=4)], Room(79, gpus_per_node=8))
    assert problem.endswith("use 32 ranks (cluster.num_workers)")


@pytest.mark.parametrize(("gpus", "remedy"), [(1, "evaluation.gpus_per_model=2"), (2, None), (4, None)])
def test_a_model_that_no_evaluation_can_hold_is_refused(gpus, remedy):
    config = configured(evaluation={"gpus_per_model": gpus})
    problems = problems_of(config, SEVENTY_BILLION, [stage(72)], Room(79))
    assert [problem for problem in problems if remedy and problem.endswith(f"set {remedy}")] == problems
    assert bool(problems) == bool(remedy)


def test_a_judge_that_no_accelerator_can_hold_is_refused_before_training():
    config = configured(evaluation={"gpus_per_model": 4})
    judges = JudgeSize("judges/70b", 131.5, 1), JudgeSize("judges/8b", 15.0, 1), JudgeSize("judges/spread", 131.5, 2)
    (problem,) = problems_of(config, SEVENTY_BILLION, [stage(72)], Room(79, judges=judges))
    assert problem.startswith(
        "evaluation.judge: judges/70b: its weights of 132 GiB do not fit on 1 accelerator(s) of 79"
    )
    assert problem.endswith("set gpus_per_model=2 of this judge, or ask a server")
    judge = {"judges": [{"path": "judges/70b", "gpus_per_model": 2}]}
    with pytest.raises(ValueError, match=r"gpus_per_model of a judge needs cluster\.gpus_per_worker=1"):
        configured(cluster={"num_workers": 2}, evaluation={"judge": judge})


def test_what_the_hosts_cannot_hold_is_refused_and_not_proposed():
    config = configured(evaluation={"gpus_per_model": 4})
    (problem,) = problems_of(config, SEVENTY_BILLION, [stage(72, host=2140)], Room(79, 1000))
    assert "the hosts would need about 2140 GiB" in problem
    assert "all nodes together have 1000; use more nodes" in problem
    assert problems_of(config, SEVENTY_BILLION, [stage(72, host=900)], Room(79, 1000)) == []
    offloaded = stage(100, remedy="training.zero.offload=cpu", host=2140)
    assert "offload=cpu" not in "".join(problems_of(config, SEVENTY_BILLION, [offloaded], Room(79, 1000)))


def test_a_model_that_fits_no_node_is_sent_to_a_server_and_a_server_is_not_asked_about_memory():
    (problem,) = problems_of(configured(), 1_000_000_000_000, [stage(72)], Room(79))
    assert "evaluation.backend=endpoint, launch/serve/vllm.sh" in problem
    served = configured(evaluation={"backend": "endpoint", "endpoint": {"url": "http://127.0.0.1:1/v1", "model": "m"}})
    assert problems_of(served, 1_000_000_000_000, [stage(72)], Room(79)) == []


def test_a_guard_whose_copy_does_not_fit_beside_training_is_refused_unless_it_needs_none():
    config = configured(evaluation={"gpus_per_model": 4})
    (problem,) = problems_of(config, SEVENTY_BILLION, [stage(60, guarding=40 + 131.5)], Room(79))
    assert problem.startswith(
        "validation.guard: sftkey-tag full: beside the 40 GiB of training, a whole model of 132 GiB"
    )
    assert "validation.guard.signal=teacher_forced" in problem
    assert problems_of(config, SEVENTY_BILLION, [stage(60)], Room(79)) == []


def test_a_guard_takes_room_beside_the_state_and_not_beside_activations_that_are_gone():
    config = configured(evaluation={"gpus_per_model": 4})
    assert problems_of(config, 8_000_000_000, [stage(78, guarding=40)], Room(79)) == []


def test_a_small_model_of_a_run_on_cpus_fits_the_accelerators_it_is_planned_for():
    assert problems_of(configured(cluster={"num_workers": 2}), 500_000, [stage(3)], Room(79)) == []


def test_published_float32_takes_twice_the_room():
    config = configured(evaluation={"gpus_per_model": 2}, training={"export_precision": "float32"})
    (problem,) = problems_of(config, SEVENTY_BILLION, [stage(72)], Room(79))
    assert "a model of 263 GiB does not fit on 2 accelerator(s)" in problem
    assert problem.endswith("set evaluation.gpus_per_model=4")


def test_workers_without_a_driver_are_refused_and_a_run_on_cpu_is_not_asked(monkeypatch):
    monkeypatch.setattr(fits, "devices_of_nodes", list)
    with pytest.raises(ConfigError, match="NVIDIA's driver answers on no node"):
        require_fit(RunPlan(configured(), None, (), ()))
    require_fit(RunPlan(configured(cluster={"num_workers": 2}), None, (), ()))


def test_devices_are_read_from_the_driver_and_known_by_name(tmp_path, monkeypatch):
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559, 580.159.04'\necho 'Some Card, 8192, 580.1'\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    h100, unknown = node_devices()
    assert (h100.name, h100.driver) == ("NVIDIA H100 80GB HBM3", "580.159.04")
    assert accelerator_like(h100).peak_tflops == 989
    assert accelerator_like(h100).memory_gib == pytest.approx(79.6, abs=0.1)
    assert accelerator_like(unknown).memory_gib == 8
    script.write_text("#!/bin/sh\nexit 9\n")
    assert node_devices() == []


def test_what_torch_keeps_unused_counts_as_free(tmp_path, monkeypatch):
    """A sparse file stands for 60 GiB of weights; the model before it left 62 in the cache of an 80 GiB device."""
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(60 * 2**30)
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (17 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    cached = 62 * 2**30
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: cached)
    require_room(tmp_path, [device])
    cached = 0
    with pytest.raises(ModelError, match=r"60\.0 GiB, but only 17\.0 GiB are free on 1 accelerator; .*gpus_per_model"):
        require_room(tmp_path, [device])
    require_room(tmp_path, [device] * 4)
    require_room(tmp_path, [])


def test_memory_is_emptied_between_models(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    accelerator.release_cached_memory()
    assert emptied


@pytest.mark.parametrize("name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD"])
def test_secrets_are_no_environment_of_workers(name):
    with pytest.raises(ValueError, match=f"{name} looks like a secret"):
        ClusterConfig(environment={name: "x"})


def test_evaluation_takes_as_many_actors_as_its_models_leave_room_for():
    assert configured().num_evaluation_workers == 32
    assert configured(evaluation={"gpus_per_model": 4}).num_evaluation_workers == 8
    assert configured(evaluation={"gpus_per_model": 4, "num_workers": 3}).num_evaluation_workers == 3
    with pytest.raises(ValueError, match=r"gpus_per_model needs cluster\.gpus_per_worker=1"):
        configured(cluster={"num_workers": 2}, evaluation={"gpus_per_model": 4})


def test_a_device_is_what_the_driver_says():
    assert Device("x", 79.6, "580").memory_gib == 79.6


def test_a_model_is_not_spread_over_nodes_for_generation():
    config = configured(evaluation={"gpus_per_model": 4})
    (problem,) = problems_of(config, 8_000_000_000, [stage(60)], Room(79, most_gpus_of_a_node=2))
    assert problem.startswith("evaluation.gpus_per_model=4: no node has more than 2 accelerator(s)")
    (problem,) = problems_of(configured(), SEVENTY_BILLION, [stage(60)], Room(79, most_gpus_of_a_node=1))
    assert "evaluation.backend=endpoint" in problem
