/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP for frontends: echo requests are answered, errors find the packet's real sender. */
#ifndef ICMP_H
#define ICMP_H

#include "balance.h"

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMPV6_LAST_ERROR 127
#define ICMPV6_ECHO 128
#define ICMPV6_ECHO_REPLY 129
#define ICMP_LENGTH 8
/* What an answer starts with. */
#define ECHO_HOPS 64

static __always_inline int is_icmp(const struct packet *p)
{
	return p->key.protocol == (p->v6 ? PROTOCOL_ICMPV6 : IPPROTO_ICMP);
}

static __always_inline int is_echo(const struct packet *p)
{
	return p->icmp_type == (p->v6 ? ICMPV6_ECHO : ICMP_ECHO);
}

static __always_inline int is_error(const struct packet *p)
{
	if (p->v6)
		return p->icmp_type <= ICMPV6_LAST_ERROR;
	return p->icmp_type == ICMP_UNREACHABLE || p->icmp_type == ICMP_TIME_EXCEEDED ||
	       p->icmp_type == ICMP_PARAMETER;
}

/* Turns an echo request round. */
static __always_inline int answer_echo(struct __sk_buff *skb, struct packet *p)
{
	__u8 request = p->icmp_type, reply = p->v6 ? ICMPV6_ECHO_REPLY : ICMP_ECHO_REPLY;
	__u16 from = request, to = reply; /* the type is the first byte of its word */
	__u8 macs[12], turned[12];

	if (bpf_skb_load_bytes(skb, 0, macs, 12))
		return counted_service(SERVICE_INTERNAL, VERDICT_DROP);
	__builtin_memcpy(turned, macs + 6, 6);
	__builtin_memcpy(turned + 6, macs, 6);
	p->ttl = ECHO_HOPS + 1;
	/* Sums do not change by an exchange of the addresses; that of IPv4 by the hops. */
	if (bpf_l4_csum_replace(skb, p->transport + ICMP_CHECKSUM, from, to, 2) ||
	    bpf_skb_store_bytes(skb, p->transport, &reply, 1, 0) ||
	    store_addresses(skb, p->v6, &p->key.dst, &p->key.src, 0))
		return counted_service(SERVICE_INTERNAL, VERDICT_DROP);
	if (bpf_skb_store_bytes(skb, 0, turned, 12, 0))
		return counted_service(SERVICE_INTERNAL, VERDICT_DROP);
	count_service(SERVICE_ECHOED);
	return bpf_redirect(skb->ifindex, 0);
}

/* The packet that an error is about: its tuple, and where it begins and its ports are. */
struct quoted {
	struct flow_key key;
	__u32 at;
	__u32 ports;
};

static __always_inline int parse_quoted(struct __sk_buff *skb, const struct packet *p,
					struct quoted *q)
{
	__be16 ports[2];

	q->at = p->transport + ICMP_LENGTH;
	if (p->v6) {
		struct ip6_header ip;

		if (bpf_skb_load_bytes(skb, q->at, &ip, sizeof(ip)))
			return 0;
		q->key.src = ip.src;
		q->key.dst = ip.dst;
		q->key.protocol = ip.next_header;
		q->ports = q->at + sizeof(ip);
	} else {
		struct ip4 ip;

		if (bpf_skb_load_bytes(skb, q->at, &ip, sizeof(ip)))
			return 0;
		map_v4(&q->key.src, ip.src);
		map_v4(&q->key.dst, ip.dst);
		q->key.protocol = ip.protocol;
		q->ports = q->at + (ip.version_length & 0x0f) * 4;
		if (ip.fragment & bpf_htons(IP4_FRAGMENT_OFFSET))
			return 0;
	}
	if (q->key.protocol != IPPROTO_TCP && q->key.protocol != IPPROTO_UDP &&
	    q->key.protocol != PROTOCOL_SCTP)
		return 0;
	if (bpf_skb_load_bytes(skb, q->ports, ports, 4))
		return 0;
	q->key.sport = ports[0];
	q->key.dport = ports[1];
	return 1;
}

/* The flow whose packets the quoted one answers. */
static __always_inline struct flow_value *flow_of_quoted(const struct quoted *q)
{
	struct flow_key key = {
		.src = q->key.dst,
		.dst = q->key.src,
		.sport = q->key.dport,
		.dport = q->key.sport,
		.protocol = q->key.protocol,
	};

	return bpf_map_lookup_elem(&flows, &key);
}

/* Gives the error the addresses that its receiver knows, inside and outside. */
static __always_inline long rewrite_error(struct __sk_buff *skb, struct packet *p,
					  const struct quoted *q, const struct flow_value *flow)
{
	struct tuple quoted = {
		.src = flow->dst,
		.dst = flow->src,
		.sport = flow->dport,
		.dport = flow->sport,
	};
	struct tuple outer = {
		/* A router's errors keep its address, those of the sender get the one he is known by. */
		.src = is_same_address(&p->key.src, &q->key.dst) ? flow->src : p->key.src,
		.dst = flow->dst,
	};
	__be16 old_ports[2] = { q->key.sport, q->key.dport };
	__s64 inside = bpf_csum_diff((__be32 *)&q->key.src, 32, (__be32 *)&quoted.src, 32, 0);
	__s64 around = bpf_csum_diff((__be32 *)&p->key.src, 32, (__be32 *)&outer.src, 32, 0);
	__s64 ports = bpf_csum_diff((__be32 *)old_ports, 4, (__be32 *)&quoted.sport, 4, 0);
	__u32 checksum = p->transport + ICMP_CHECKSUM;
	__be32 both[2];

	if (inside < 0 || around < 0 || ports < 0)
		return -1;
	if (p->v6) {
		if (bpf_skb_store_bytes(skb, q->at + 8, &quoted.src, 16, 0) ||
		    bpf_skb_store_bytes(skb, q->at + 24, &quoted.dst, 16, 0) ||
		    bpf_l4_csum_replace(skb, checksum, 0, inside, 0) ||
		    bpf_l4_csum_replace(skb, checksum, 0, around, BPF_F_PSEUDO_HDR))
			return -1;
	} else {
		/* The quoted header's own sum moves against its addresses: the error's stays. */
		both[0] = v4_of(&quoted.src);
		both[1] = v4_of(&quoted.dst);
		if (bpf_skb_store_bytes(skb, q->at + 12, both, 8, 0) ||
		    bpf_l3_csum_replace(skb, q->at + 10, 0, inside, 0))
			return -1;
	}
	if (bpf_l4_csum_replace(skb, checksum, 0, ports, 0) ||
	    bpf_skb_store_bytes(skb, q->ports, &quoted.sport, 4, 0) ||
	    store_addresses(skb, p->v6, &outer.src, &outer.dst, around))
		return -1;
	p->key.src = outer.src;
	p->key.dst = outer.dst;
	return 0;
}

#endif
