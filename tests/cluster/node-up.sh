#!/usr/bin/env bash
# node-up.sh NODE...: starts these nodes, those that have died as well, and waits until they are ready.
set -u
here=$(dirname "$(realpath "$0")")
. "$here/lib.sh"
for node in "$@"; do
    start "node-$node" "k8s-$node" unshare --mount --pid --fork --kill-child=KILL --propagation private "$here/node.sh" "$node"
done
for node in "$@"; do
    until_true 120 "$BIN/kubectl" --kubeconfig "$CERTS/admin.kubeconfig" wait --for=condition=Ready "node/$node" --timeout=2s || {
        echo "node-up.sh: $node does not become ready" >&2
        tail -n 5 "$LOGS/node-$node.log" >&2
        exit 1
    }
    printf '%4d s %s is ready\n' "$SECONDS" "$node"
done
