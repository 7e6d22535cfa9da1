#!/usr/bin/env bash
# Installs Pilus on a node of the Vagrant lab as a systemd unit with static manifests.
set -euo pipefail
binary=$(find /pilus/target -path '*/release/pilus' -type f -perm -u+x | grep -v '/deps/' | head -n 1)
[ -n "$binary" ] || { echo "no binary: run scripts/build on the host, then vagrant rsync" >&2; exit 1; }
install -m 0755 "$binary" /usr/local/bin/pilus
install -d /etc/pilus/manifests
install -m 0644 /pilus/manifests/examples/lb-ippool-l2policy.yaml /etc/pilus/manifests/
[ -e /etc/pilus/pilus.yaml ] || printf 'interfaces: [eth1]\nname-prefix: cilium\ningress:\n  mode: shared\n' >/etc/pilus/pilus.yaml
install -m 0644 /pilus/manifests/systemd/pilus.service /etc/systemd/system/pilus.service
systemctl daemon-reload
systemctl enable --now pilus
