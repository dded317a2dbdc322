"""Convert a GGUF file to a Hugging Face model folder: `python -m sftkey_dist.models.gguf FILE OUT`.

GGUF weights are dequantised, so the folder contains the values that a GGUF runtime computes with and not the original
weights.
"""

import argparse
from pathlib import Path

import torch
import transformers

from sftkey_dist.files import folder_written_whole


def convert(gguf_file: Path, out: Path) -> None:
    """Write ``out`` with float32 safetensors, the configuration and the tokenizer."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    )
    # The loader marks the model as quantised, but its weights are plain float32 now.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    with folder_written_whole(out) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)


def main() -> None:
    """Entry point of the module's command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf_file", type=Path, help="the GGUF file")
    parser.add_argument("out", type=Path, help="model folder to write")
    arguments = parser.parse_args()
    convert(arguments.gguf_file, arguments.out)
    print(f"model folder: {arguments.out}")


if __name__ == "__main__":
    main()
