/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one translation unit: every program and map of the data path. See bpf/README.md.
 * Built by scripts/bpf-build into pilus.bpf.o, which is checked in.
 */
#include "common.h"
#include "arp.h"
#include "ndp.h"
#include "steer.h"

/*
 * tc ingress of a LAN interface: answers ARP and Neighbor Solicitations for announced
 * addresses, and keeps the kernel from answering them itself.
 */
SEC("classifier")
int l2_announce(struct __sk_buff *skb)
{
	__u32 protocol = skb->protocol;

	if (protocol != bpf_htons(ETH_P_ARP) && protocol != bpf_htons(ETH_P_IPV6))
		return VERDICT_PASS;
	if (skb->pkt_type == PKT_OTHERHOST)
		return VERDICT_PASS;
	if (skb->vlan_present) {
		/* A tagged frame belongs to the VLAN's own interface, where this program
		 * may run too. VLAN 0 is only a priority mark: the frame is ours. */
		if (skb->vlan_tci & VLAN_ID_MASK)
			return VERDICT_PASS;
		if (bpf_skb_vlan_pop(skb))
			return VERDICT_PASS;
	}
	if (protocol == bpf_htons(ETH_P_ARP))
		return handle_arp(skb);
	return handle_ipv6(skb);
}

/* Not one helper used here is reserved for GPL programs (a test asserts it). */
char LICENSE[] SEC("license") = "Apache-2.0";
