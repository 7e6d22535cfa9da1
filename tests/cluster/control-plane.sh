#!/usr/bin/env bash
# control-plane.sh NAME...: starts these parts of the control plane; those that were ended as well.
set -u
. "$(dirname "$(realpath "$0")")/lib.sh"

start_etcd() {
    # Nobody needs this data after a power cut.
    start etcd "$CLUSTER_NETNS" "$BIN/etcd" --name m --data-dir "$CLUSTER_HOME/data/etcd" --unsafe-no-fsync \
        --listen-client-urls http://127.0.0.1:12379 --advertise-client-urls http://127.0.0.1:12379 \
        --listen-peer-urls http://127.0.0.1:12380 --initial-advertise-peer-urls http://127.0.0.1:12380 \
        --initial-cluster m=http://127.0.0.1:12380
}

start_apiserver() {
    local issuer=https://kubernetes.default.svc.cluster.local
    start kube-apiserver "$CLUSTER_NETNS" "$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:12379 \
        --bind-address=0.0.0.0 --secure-port=6443 --advertise-address=10.201.0.1 \
        --tls-cert-file="$CERTS/apiserver.crt" --tls-private-key-file="$CERTS/apiserver.key" \
        --client-ca-file="$CERTS/ca.crt" --cert-dir="$CLUSTER_HOME/run" \
        --service-account-issuer=$issuer --service-account-key-file="$CERTS/sa.pub" \
        --service-account-signing-key-file="$CERTS/sa.key" --service-cluster-ip-range=10.96.0.0/16 \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
        --anonymous-auth=true --profiling=false \
        --kubelet-client-certificate="$CERTS/kubelet-client.crt" --kubelet-client-key="$CERTS/kubelet-client.key" \
        --kubelet-certificate-authority="$CERTS/ca.crt" --kubelet-preferred-address-types=InternalIP \
        --requestheader-client-ca-file="$CERTS/ca.crt" --requestheader-allowed-names=front-proxy-client \
        --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
        --requestheader-username-headers=X-Remote-User --proxy-client-cert-file="$CERTS/front-proxy-client.crt" \
        --proxy-client-key-file="$CERTS/front-proxy-client.key" \
        --audit-policy-file="$CLUSTER_HOME/run/audit-policy.yaml" --audit-log-path="$LOGS/audit.log"
}

# client NAME PORT FLAGS...: a part that talks to the API server.
client() {
    local name=$1 port=$2
    shift 2
    start "$name" "$CLUSTER_NETNS" "$BIN/$name" --kubeconfig="$CERTS/$name.kubeconfig" \
        --authentication-kubeconfig="$CERTS/$name.kubeconfig" --authorization-kubeconfig="$CERTS/$name.kubeconfig" \
        --bind-address=127.0.0.1 --secure-port="$port" --cert-dir="$CLUSTER_HOME/run/$name" \
        --leader-elect=false --profiling=false "$@"
}

# Each request of Pilus, and of nobody else, is noted: cases.py counts them.
cat >"$CLUSTER_HOME/run/audit-policy.yaml" <<'POLICY'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: ["system:masters", "system:nodes"]}
- {level: Request, users: ["system:serviceaccount:kube-system:pilus"], verbs: [create, update, patch, delete]}
- {level: Metadata, users: ["system:serviceaccount:kube-system:pilus"]}
- {level: None}
POLICY

for name in "$@"; do
    case $name in
    etcd) start_etcd ;;
    kube-apiserver) start_apiserver ;;
    kube-controller-manager)
        client $name 10257 --service-account-private-key-file="$CERTS/sa.key" --root-ca-file="$CERTS/ca.crt" \
            --cluster-signing-cert-file="$CERTS/ca.crt" --cluster-signing-key-file="$CERTS/ca.key" \
            --use-service-account-credentials=true --service-cluster-ip-range=10.96.0.0/16 \
            --allocate-node-cidrs=false --kube-api-qps=300 --kube-api-burst=600 --node-monitor-grace-period=20s
        ;;
    kube-scheduler) client $name 10259 ;;
    *) echo "control-plane.sh: what is $name?" >&2 && exit 2 ;;
    esac
done
