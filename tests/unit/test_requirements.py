"""The lock files: all that pyproject.toml asks for, each version with its hashes, and torch left to the machine."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {"runtime": ("gguf", "tracking-server"), "development": ("gguf", "dev")}
PYTHONS = ("3.11", "3.12", "3.13")


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(name):
    """Each entry as the requirement and its hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if not line.startswith("#"):
            requirement, *hashes = line.split(" --hash=")
            yield Requirement(requirement), [each.strip() for each in hashes]


def versions(name, python):
    environment = default_environment() | {"python_version": python, "python_full_version": f"{python}.9"}
    environment |= {"sys_platform": "linux", "platform_machine": "x86_64"}
    chosen = {}
    for requirement, _ in locked(name):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert canonical(requirement.name) not in chosen, "one version for one machine"
            (chosen[canonical(requirement.name)],) = requirement.specifier
    return {package: pin.version for package, pin in chosen.items()}


@pytest.mark.parametrize("name", EXTRAS)
def test_every_version_is_exact_and_has_its_hashes(name):
    for requirement, hashes in locked(name):
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), requirement


@pytest.mark.parametrize("name", EXTRAS)
@pytest.mark.parametrize("python", PYTHONS)
def test_what_the_project_asks_for_is_locked_within_its_bounds(name, python):
    asked = [*PROJECT["dependencies"]]
    for extra in EXTRAS[name]:
        asked += PROJECT["optional-dependencies"][extra]
    chosen = versions(name, python)
    for each in map(Requirement, asked):
        if each.name != "torch":
            assert each.specifier.contains(chosen[canonical(each.name)]), f"{each}: run make lock"
    own = [package for package in chosen if package == "triton" or package.startswith(("torch", "nvidia-", "cuda-"))]
    assert not own, "which build of torch depends on the machine"


@pytest.mark.parametrize("python", PYTHONS)
def test_images_run_the_versions_that_were_tested(python):
    tested = versions("development", python)
    assert {package: tested.get(package) for package in versions("runtime", python)} == versions("runtime", python)
