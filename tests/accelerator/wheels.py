"""Collect what a CUDA image with torch lacks, for a machine without a network.

``python -m tests.accelerator.wheels OUT --python-version 3.12`` here; then, there,
``pip install --no-index --no-deps --target SITE OUT/*.whl`` and ``PYTHONPATH=SITE python -m tests.accelerator probe``.
"""

import argparse
import importlib.metadata
import subprocess
import sys
from pathlib import Path

PURE = (
    "transformers",
    "peft",
    "datasets",
    "dill",
    "multiprocess",
    "pydantic",
    "annotated-types",
    "typing-inspection",
    "hjson",
    "openai",
    "distro",
    "sniffio",
    "jsonschema",
    "jsonschema-specifications",
    "referencing",
)
PEER = "trl==1.16.0"
"""The trainer that throughput is compared with."""
COMPILED = ("pydantic-core", "rpds-py", "jiter", "regex")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
"""The image is to have torch, numpy, accelerate, safetensors, tokenizers, pyarrow, pandas, httpx and PyYAML."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the wheels; 24 MB")
    parser.add_argument("--python-version", default="3.12", help="of that machine")
    options = parser.parse_args()
    pip = [sys.executable, "-m", "pip"]
    platforms = [argument for platform in PLATFORMS for argument in ("--platform", platform)]
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in (*PURE, *COMPILED)]
    wanted.append(PEER)
    download = ["download", "--no-deps", "--only-binary=:all:", "--python-version", options.python_version]
    subprocess.run([*pip, *download, *platforms, "--dest", str(options.out), *wanted], check=True)
    # DeepSpeed comes as source; built without its compiled operators, it is pure Python.
    deepspeed = f"deepspeed=={importlib.metadata.version('deepspeed')}"
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(options.out), deepspeed]
    subprocess.run([*pip, *build], check=True)
    for wheel in sorted(options.out.glob("*.whl")):
        print(f"{wheel.stat().st_size / 1e6:6.1f} MB  {wheel.name}")


if __name__ == "__main__":
    main()
