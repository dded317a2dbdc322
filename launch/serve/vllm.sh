#!/usr/bin/env bash
# vLLM as a server that generates the responses of an evaluation. It has its own virtual environment, because it pins
# other versions of torch and transformers than sftkey_dist.
#   launch/serve/vllm.sh runs/mine/stages/STAGE/model 4
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: vllm.sh MODEL_DIR [GPUS [VLLM_OPTION…]]

Serves a model folder on GPUS GPUs (default 1) and prints the `sftkey evaluate` that uses it. vLLM compiles kernels
when it starts, so a C compiler and Python's headers must be there.

environment:
  VLLM_API_KEY              key of the server; without, one is made and kept in ~/.sftkey-vllm-key
  SFTKEY_SERVED_NAME        the model's name in requests; default: the name of its folder
  SFTKEY_VLLM_PORT          port on 127.0.0.1; default 8000
  SFTKEY_VLLM_VERSION       version to install; default 0.30.0
  SFTKEY_VLLM_ENVIRONMENT   folder of the virtual environment; default: ~/.cache/sftkey/vllm-VERSION
TEXT
}

if [[ "${1:-}" == --help ]]; then
    usage
    exit
elif [[ $# -eq 0 || ! "${2:-1}" =~ ^[1-9][0-9]*$ ]]; then
    usage >&2
    exit 2
elif [[ ! -f "$1/config.json" ]]; then
    echo "$1: not a folder with a model; a run has its models in stages/*/model" >&2
    exit 2
fi

model_dir="$(realpath "$1")"
gpus="${2:-1}"
port="${SFTKEY_VLLM_PORT:-8000}"
version="${SFTKEY_VLLM_VERSION:-0.30.0}"
environment="${SFTKEY_VLLM_ENVIRONMENT:-$HOME/.cache/sftkey/vllm-$version}"
stage_or_model="${model_dir%/model}" # a stage's model is always in a folder called model, so the name is that of the parent
name="${SFTKEY_SERVED_NAME:-${stage_or_model##*/}}"

if [[ ! -e "$environment/vllm-$version.installed" ]]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install "vllm==$version"
    touch "$environment/vllm-$version.installed"
fi

# vLLM reads the key from the environment, because command lines are visible to everyone on the machine.
from_file=""
if [[ -z "${VLLM_API_KEY:-}" ]]; then
    key_file="$HOME/.sftkey-vllm-key"
    if [[ ! -s "$key_file" ]]; then
        (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$key_file")
    fi
    chmod 600 "$key_file"
    VLLM_API_KEY="$(<"$key_file")"
    echo "The server's key is in $key_file"
    from_file="VLLM_API_KEY=\"\$(cat $(printf %q "$key_file"))\" "
fi
export VLLM_API_KEY VLLM_NO_USAGE_STATS=1

# The server has one model, so the command names the strategy of this model.
cat <<TEXT
When the server is ready, on this machine:
  ${from_file}sftkey evaluate CONFIG strategies=[STRATEGY] evaluation.backend=endpoint \\
    evaluation.endpoint.url=http://127.0.0.1:$port/v1 evaluation.endpoint.model=$(printf %q "$name") \\
    evaluation.endpoint.api_key_env=VLLM_API_KEY
TEXT

# --generation-config vllm: requests alone determine sampling, not the generation_config.json of the folder.
# --max-model-len auto: as long as fits beside the weights; the model's whole context may not.
exec "$environment/bin/vllm" serve "$model_dir" --served-model-name "$name" --tensor-parallel-size "$gpus" \
    --host 127.0.0.1 --port "$port" --generation-config vllm --max-model-len auto "${@:3}"
