/* SPDX-License-Identifier: Apache-2.0 */
/* Rewrites addresses and ports with their checksums, and sends packets on. */
#ifndef REWRITE_H
#define REWRITE_H

#include "packet.h"

#define FAMILY_INET 2
#define FAMILY_INET6 10
#define IP4_CHECKSUM (ETH_HLEN + 10)
#define IP4_TTL (ETH_HLEN + 8)
#define IP4_ADDRESSES (ETH_HLEN + 12)
#define IP6_HOP_LIMIT (ETH_HLEN + 7)
#define IP6_ADDRESSES (ETH_HLEN + 8)
#define TCP_CHECKSUM 16
#define UDP_CHECKSUM 6
#define ICMP_CHECKSUM 2

/* Two addresses and two ports, as a packet has them. */
struct tuple {
	struct ip_addr src;
	struct ip_addr dst;
	__be16 sport;
	__be16 dport;
};

static __always_inline int is_same_address(const struct ip_addr *a, const struct ip_addr *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return x[0] == y[0] && x[1] == y[1];
}

static __always_inline int is_no_address(const struct ip_addr *a)
{
	const __u32 *x = (const __u32 *)a;

	return (x[0] | x[1] | x[2] | x[3]) == 0;
}

static __always_inline int is_v4(const struct ip_addr *addr)
{
	const __u32 *words = (const __u32 *)addr;

	return (words[0] | words[1]) == 0 && words[2] == bpf_htonl(0xffff);
}

static __always_inline __be32 v4_of(const struct ip_addr *addr)
{
	return ((const __u32 *)addr)[3];
}

/* Stores the addresses; for IPv4 with the header's checksum, which `diff` changes likewise. */
static __always_inline long store_addresses(struct __sk_buff *skb, int v6,
					    const struct ip_addr *src, const struct ip_addr *dst,
					    __s64 diff)
{
	__be32 both[2];

	if (v6)
		return bpf_skb_store_bytes(skb, IP6_ADDRESSES, src, 16, 0) |
		       bpf_skb_store_bytes(skb, IP6_ADDRESSES + 16, dst, 16, 0);
	both[0] = v4_of(src);
	both[1] = v4_of(dst);
	return bpf_skb_store_bytes(skb, IP4_ADDRESSES, both, 8, 0) |
	       bpf_l3_csum_replace(skb, IP4_CHECKSUM, 0, diff, 0);
}

/*
 * Gives the packet another tuple. What the transport's checksum covers of the addresses is the
 * pseudo header: it is told apart from the ports, because a checksum that is still to be
 * completed by the card has only that in it.
 */
static __always_inline long rewrite(struct __sk_buff *skb, const struct packet *p,
				    struct tuple *to)
{
	__be16 old_ports[2] = { p->key.sport, p->key.dport };
	__s64 diff = bpf_csum_diff((__be32 *)&p->key.src, 32, (__be32 *)&to->src, 32, 0);
	__u32 at = p->transport;
	__u64 zero = 0;
	__s64 ports;

	if (diff < 0 || store_addresses(skb, p->v6, &to->src, &to->dst, diff))
		return -1;
	if (p->later_fragment)
		return 0;
	ports = bpf_csum_diff((__be32 *)old_ports, 4, (__be32 *)&to->sport, 4, 0);
	if (ports < 0)
		return -1;
	if (p->key.protocol == IPPROTO_TCP) {
		at += TCP_CHECKSUM;
	} else if (p->key.protocol == IPPROTO_UDP) {
		at += UDP_CHECKSUM;
		zero = BPF_F_MARK_MANGLED_0;
	} else {
		/* SCTP: its checksum leaves out the addresses, and its ports are never changed. */
		return old_ports[0] == to->sport && old_ports[1] == to->dport ? 0 : -1;
	}
	if (bpf_l4_csum_replace(skb, at, 0, diff, BPF_F_PSEUDO_HDR | zero))
		return -1;
	if (old_ports[0] == to->sport && old_ports[1] == to->dport)
		return 0;
	return bpf_l4_csum_replace(skb, at, 0, ports, zero) |
	       bpf_skb_store_bytes(skb, p->transport, &to->sport, 4, 0);
}

static __always_inline long spend_hop(struct __sk_buff *skb, const struct packet *p)
{
	__u8 less = p->ttl - 1;
	__u16 before = p->ttl, after = less; /* the TTL is the first byte of its word */

	if (p->v6)
		return bpf_skb_store_bytes(skb, IP6_HOP_LIMIT, &less, 1, 0);
	return bpf_skb_store_bytes(skb, IP4_TTL, &less, 1, 0) |
	       bpf_l3_csum_replace(skb, IP4_CHECKSUM, before, after, 2);
}

/*
 * Sends the packet on: back the way a client's packets came, or out of the interface that leads
 * to a backend or (`relay`) to the node that is in its place, whose hardware address the kernel finds. Without an
 * interface, and where the packet is too large for it, the kernel's own forwarding does it.
 */
static __always_inline int send_on(struct __sk_buff *skb, const struct packet *p,
				   const struct flow_value *flow, int relay)
{
	struct bpf_redir_neigh neighbor = {};

	/* Segments of a large packet are measured by whoever cuts it. */
	if (!flow->ifindex || (flow->mtu && skb->gso_segs <= 1 && p->length > flow->mtu))
		return counted_service(SERVICE_TO_STACK, VERDICT_PASS);
	if (spend_hop(skb, p))
		return counted_service(SERVICE_INTERNAL, VERDICT_DROP);
	if (flow->flags & FLOW_MACS) {
		if (bpf_skb_store_bytes(skb, 0, flow->macs, 12, 0))
			return counted_service(SERVICE_INTERNAL, VERDICT_DROP);
		return flow->flags & FLOW_PEER ? bpf_redirect_peer(flow->ifindex, 0) :
						 bpf_redirect(flow->ifindex, 0);
	}
	if (!relay)
		return bpf_redirect_neigh(flow->ifindex, NULL, 0, 0);
	if (p->v6) {
		neighbor.nh_family = FAMILY_INET6;
		__builtin_memcpy(neighbor.ipv6_nh, &flow->dst, 16);
	} else {
		neighbor.nh_family = FAMILY_INET;
		neighbor.ipv4_nh = v4_of(&flow->dst);
	}
	return bpf_redirect_neigh(flow->ifindex, &neighbor, sizeof(neighbor), 0);
}

#endif
