#!/usr/bin/env bash
# Several Ray nodes on this machine, to try out a cluster: nodes.sh NUMBER VERB CONFIG [KEY=VALUE …]
#   launch/local/nodes.sh 2 run configs/quickstart.yaml run_dir="$PWD/runs/two-nodes" data.store_dir="$PWD/runs/store"
set -euo pipefail

if [[ $# -lt 3 ]]; then
    echo "usage: $0 NUMBER VERB CONFIG [KEY=VALUE …]" >&2
    exit 2
fi
number="$1"
shift

token="$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN="$token"
folder="$(mktemp -d /tmp/sftkey-ray.XXXX)" # the paths of sockets must be short
port="${SFTKEY_RAY_PORT:-26379}"
nodes=()

finish() {
    trap - EXIT
    kill "${nodes[@]}" 2>/dev/null || true
    wait "${nodes[@]}" 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT

start() { # NUMBER ARGUMENTS…: every node has its own ports
    local first="$((port + 10 * ($1 + 1)))"
    shift
    ray start "$@" --node-ip-address=127.0.0.1 --num-cpus=1 --disable-usage-stats --block \
        --object-store-memory=134217728 --dashboard-agent-listen-port="$first" \
        --dashboard-agent-grpc-port="$((first + 1))" --metrics-export-port="$((first + 2))" \
        --runtime-env-agent-port="$((first + 3))" >"$folder/node-$first.log" 2>&1 &
    nodes+=("$!")
}

start 0 --head --port="$port" --dashboard-host=127.0.0.1 --dashboard-port="$((port + 1))" --temp-dir="$folder"
for ((node = 1; node < number; node++)); do
    start "$node" --address="127.0.0.1:$port"
done

sftkey "$@" cluster.address="127.0.0.1:$port" cluster.wait_for_nodes_seconds=120 cluster.num_workers="$number" \
    cluster.network_interface=lo
