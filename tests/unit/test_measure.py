"""Each measure counts what it says, on a package with one fault of its kind."""

import pytest

from tests.measure import Measure, measures_of, read_sources

GOOD = {"one.py": "def first(): ...\n\n\ndef second(): ...\n", "sampler/plan.py": "x = 1  # why\n"}
LONG = "def long():\n" + "    pass\n" * 60
USES = "from sftkey_dist.one import first\n"
READS = "read_json(file)\n"
FAULTS = {
    "longest function": ({"one.py": GOOD["one.py"] + LONG}, 61, ["one.long:5: 61"]),
    "files over 300 lines": ({f"{name}.py": "x = 1\n" * 301 for name in "abcd"}, 4, ["a: 301"]),
    "modules that import themselves through others": (
        {
            "one.py": GOOD["one.py"] + "import sftkey_dist.two\n",
            "two.py": "def f():\n    from sftkey_dist.one import x\n",
        },
        2,
        ["one", "two"],
    ),
    "reads of our own files without a type, outside run_dir": (
        {
            "two.py": "read_json(file)\n",
            "run_dir/artifacts.py": "read_json(file)\n",
            "models/x.py": "read_json(file)\n",
        },
        1,
        ["two:1"],
    ),
    "`Any` per 1,000 lines": ({"two.py": "from typing import Any\nx: dict[str, Any]\n"}, pytest.approx(1000 / 7), []),
    "comments in sampler/": ({"sampler/plan.py": "x = '#'\n" * 99}, 0, []),
}


def measured(folder, files) -> dict[str, Measure]:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return {measure.name: measure for measure in measures_of(read_sources(folder))}


def test_a_package_without_faults_keeps_every_limit(tmp_path):
    measures = measured(tmp_path, GOOD)
    assert {name for name, measure in measures.items() if not measure.is_kept} == set()
    assert set(FAULTS) < set(measures)
    assert measures["longest function"].value == 1


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_exceeds_its_limit_and_no_other(tmp_path, name):
    files, value, places = FAULTS[name]
    measures = measured(tmp_path, GOOD | files)
    assert {other for other, measure in measures.items() if not measure.is_kept} == {name}
    assert measures[name].value == value
    assert measures[name].places[: len(places)] == places
    assert "EXCEEDED" in measures[name].verdict
