#!/usr/bin/env bash
# agents.sh BINARY NODE...: starts Pilus on these nodes, with the rights of its service account and no others.
# PILUS_KUBECONFIG names another way to prove who it is. Addresses that it keeps for a restart stay in CLUSTER_HOME/run/NODE/state.
set -u
. "$(dirname "$(realpath "$0")")/lib.sh"
binary=$1
shift
bpf=$CLUSTER_HOME/run/bpf
mkdir -p "$bpf"
mountpoint -q "$bpf" || mount -t bpf bpf "$bpf" || exit 1
for node in "$@"; do
    run=$CLUSTER_HOME/run/$node
    mkdir -p "$run"
    # The tests ask with plain HTTP.
    printf 'ingress: {enforce-https: false}\n' >"$run/pilus.yaml"
    PILUS_LOG=${PILUS_LOG:-info} start "pilus-$node" "k8s-$node" "$binary" run --config "$run/pilus.yaml" \
        --kubeconfig "${PILUS_KUBECONFIG:-$CERTS/pilus.kubeconfig}" --node "$node" --interface eth0 --state-dir "$run/state" \
        --bpf-root "$bpf/$node" --admin "unix:$run/admin.sock" --metrics ""
done
