#!/usr/bin/env bash
# Builds what is missing in CLUSTER_CACHE: the parts of Kubernetes, etcd, CoreDNS, the echo server and the official suite,
# from the modules whose versions and sums stand in go.mod and go.sum here and in ../conformance-official.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
: "${CLUSTER_CACHE:?}" "${KUBERNETES_VERSION:?}"
bin=$CLUSTER_CACHE/bin
img=$CLUSTER_CACHE/img
mkdir -p "$bin" "$img"
export CGO_ENABLED=0

# built NAME FOLDER PACKAGE [LINKER-FLAGS]
built() {
    [ ! -x "$bin/$1" ] || return 0
    printf '== building %s\n' "$1" >&2
    (cd "$2" && go build -trimpath -ldflags "-s -w ${4:-}" -o "$bin/$1.new" "$3")
    mv "$bin/$1.new" "$bin/$1"
}

# image NAME TAG BINARY
image() {
    [ "$img/$1.tar" -nt "$bin/$3" ] || python3 "$here/mkimage.py" "$img/$1.tar" "$2" "$bin/$3" "/$3"
}

minor=${KUBERNETES_VERSION#v1.}
version="-X k8s.io/component-base/version.gitVersion=$KUBERNETES_VERSION -X k8s.io/component-base/version.gitMajor=1
 -X k8s.io/component-base/version.gitMinor=${minor%%.*} -X k8s.io/client-go/pkg/version.gitVersion=$KUBERNETES_VERSION"
version=$(echo $version)
for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    built $name "$here" k8s.io/kubernetes/cmd/$name "$version"
done
built etcd "$here" go.etcd.io/etcd/server/v3
built pause "$here" ./pause
built coredns "$here/coredns" github.com/coredns/coredns
suite=$here/../conformance-official
built echo-basic "$suite" sigs.k8s.io/gateway-api/conformance/echo-basic
if [ ! -x "$bin/conformance.test" ]; then
    echo "== building the official suite" >&2
    (cd "$suite" && go test -c -trimpath -ldflags "-s -w" -o "$bin/conformance.test" .)
fi

# The suite names images by the tags of its project: those names are given to what was built here.
modules=$(cd "$suite" && go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api/conformance)
tags() { grep -rho --include='*.yaml' "image: *[^ ]*/$1:[^ ]*" "$modules" | sed 's/image: *//' | sort -u | paste -sd, -; }
image pause localhost/pause:1 pause
image echo "localhost/echo:1,$(tags echo-basic)" echo-basic
image coredns "$(tags coredns)" coredns
