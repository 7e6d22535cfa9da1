/* SPDX-License-Identifier: Apache-2.0 */
/* ARP (RFC 826, RFC 5227) for announced IPv4 addresses. */
#ifndef ARP_H
#define ARP_H

#include "common.h"

/* Written out: <linux/if_arp.h> needs C library headers. */
#define ARP_HTYPE_ETHER 1
#define ARP_HTYPE_IEEE802 6 /* Linux answers these too, so they must not slip past */
#define ARP_REQUEST 1
#define ARP_REPLY 2

struct arp_frame {
	struct ethhdr eth;
	__be16 htype;
	__be16 ptype;
	__u8 hlen;
	__u8 plen;
	__be16 op;
	__u8 sha[ETH_ALEN];
	__be32 spa;
	__u8 tha[ETH_ALEN];
	__be32 tpa;
} __attribute__((packed));

static __always_inline int handle_arp(struct __sk_buff *skb)
{
	struct address_value *address;
	struct address_key key = { .ifindex = skb->ifindex };
	struct arp_frame arp;
	int verdict;

	if (bpf_skb_load_bytes(skb, 0, &arp, sizeof(arp)))
		return counted(PASSED_ARP_MALFORMED, VERDICT_PASS);
	if ((arp.htype != bpf_htons(ARP_HTYPE_ETHER) &&
	     arp.htype != bpf_htons(ARP_HTYPE_IEEE802)) ||
	    arp.ptype != bpf_htons(ETH_P_IP) || arp.hlen != ETH_ALEN || arp.plen != 4)
		return counted(PASSED_ARP_MALFORMED, VERDICT_PASS);
	/* Replies and announcements (sender = target) claim, they do not ask. */
	if (arp.op != bpf_htons(ARP_REQUEST) || arp.spa == arp.tpa)
		return VERDICT_PASS;

	map_v4(&key.addr, arp.tpa);
	address = bpf_map_lookup_elem(&addresses, &key);
	if (!address)
		return VERDICT_PASS;
	/* From here on the kernel must not see it: a local route would make it answer. */
	if (!is_station(arp.sha))
		return counted(DROPPED_ARP_BAD_SENDER, VERDICT_DROP);
	verdict = silence(address);
	if (verdict != VERDICT_PASS)
		return verdict;

	__be32 asked = arp.tpa;

	arp.htype = bpf_htons(ARP_HTYPE_ETHER);
	arp.op = bpf_htons(ARP_REPLY);
	__builtin_memcpy(arp.eth.h_dest, arp.sha, ETH_ALEN);
	__builtin_memcpy(arp.eth.h_source, address->mac, ETH_ALEN);
	__builtin_memcpy(arp.tha, arp.sha, ETH_ALEN);
	__builtin_memcpy(arp.sha, address->mac, ETH_ALEN);
	arp.tpa = arp.spa; /* zero for a probe, as RFC 5227 has it */
	arp.spa = asked;
	if (bpf_skb_store_bytes(skb, 0, &arp, sizeof(arp), 0))
		return counted(DROPPED_INTERNAL, VERDICT_DROP);
	return answered(skb, address, REPLIED_ARP);
}

#endif
