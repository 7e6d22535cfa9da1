/* SPDX-License-Identifier: Apache-2.0 */
/* Reads of a packet what services are decided by: addresses, ports, protocol. */
#ifndef PACKET_H
#define PACKET_H

#include "common.h"
#include "service.h"

/* __sk_buff.pkt_type of a frame for this host (linux/if_packet.h). */
#define PACKET_HOST 0
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_SCTP 132
#define IP4_FRAGMENT_OFFSET 0x1fff
#define IP4_MORE_FRAGMENTS 0x2000
#define IP4_DO_NOT_FRAGMENT 0x4000
/* Extension headers that may come before the transport's (RFC 8200 section 4.1). */
#define IP6_HOP_BY_HOP 0
#define IP6_ROUTING 43
#define IP6_FRAGMENT 44
#define IP6_DESTINATION 60
#define IP6_MORE_FRAGMENTS 1
#define IP6_FRAGMENT_OFFSET 0xfff8
/* More than any sane packet has. */
#define MAX_EXTENSIONS 4

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Written out: <linux/ip.h> and <linux/ipv6.h> need C library headers. */
struct ip4 {
	__u8 version_length;
	__u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 src;
	__be32 dst;
} __attribute__((packed));

struct ip6_header {
	__be32 version_class_flow;
	__be16 payload_len;
	__u8 next_header;
	__u8 hop_limit;
	struct ip_addr src;
	struct ip_addr dst;
} __attribute__((packed));

struct packet {
	struct flow_key key;
	__u32 transport; /* offset of the transport header from the start of the frame */
	__u16 length;	 /* of the IP packet */
	__u8 v6;
	__u8 ttl;
	__u8 tcp_flags;
	__u8 later_fragment; /* it has no transport header */
	__u8 icmp_type;
	__u8 tos;
};

enum parsed {
	PARSED_NOT = 0,	 /* nothing that services are about */
	PARSED = 1,
	PARSED_LOST = 2, /* a later fragment whose first is not known */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SERVICE_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} service_counters SEC(".maps");

static __always_inline void count_service(enum service_counter which)
{
	__u32 index = which;
	__u64 *n = bpf_map_lookup_elem(&service_counters, &index);

	if (n)
		*n += 1;
}

static __always_inline int counted_service(enum service_counter which, int verdict)
{
	count_service(which);
	return verdict;
}

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_FRAGMENTED);
	__type(key, struct fragment_key);
	__type(value, struct fragment_value);
} fragments SEC(".maps");

/* Ports of the first fragment are kept for those that follow and have none. */
static __always_inline int with_fragments(struct packet *p, __u32 id, int first)
{
	struct fragment_key key = {
		.src = p->key.src,
		.dst = p->key.dst,
		.id = id,
		.protocol = p->key.protocol,
	};
	struct fragment_value *ports;

	if (first) {
		struct fragment_value value = { .sport = p->key.sport, .dport = p->key.dport };

		bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
		return PARSED;
	}
	ports = bpf_map_lookup_elem(&fragments, &key);
	if (!ports)
		return PARSED_LOST;
	p->key.sport = ports->sport;
	p->key.dport = ports->dport;
	return PARSED;
}

static __always_inline int parse_transport(struct __sk_buff *skb, struct packet *p)
{
	__u8 head[14];

	switch (p->key.protocol) {
	case IPPROTO_TCP:
		if (bpf_skb_load_bytes(skb, p->transport, head, 14))
			return PARSED_NOT;
		p->tcp_flags = head[13];
		break;
	case IPPROTO_UDP:
	case PROTOCOL_SCTP:
		if (bpf_skb_load_bytes(skb, p->transport, head, 8))
			return PARSED_NOT;
		break;
	case IPPROTO_ICMP:
	case PROTOCOL_ICMPV6:
		if (bpf_skb_load_bytes(skb, p->transport, head, 8))
			return PARSED_NOT;
		p->icmp_type = head[0];
		return PARSED;
	default:
		return PARSED_NOT;
	}
	__builtin_memcpy(&p->key.sport, head, 2);
	__builtin_memcpy(&p->key.dport, head + 2, 2);
	return PARSED;
}

static __always_inline int parse4(struct __sk_buff *skb, struct packet *p, __u32 at)
{
	struct ip4 ip;
	__u16 fragment;
	int parsed;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
		return PARSED_NOT;
	if ((ip.version_length & 0xf0) != 0x40 || (ip.version_length & 0x0f) < 5)
		return PARSED_NOT;
	map_v4(&p->key.src, ip.src);
	map_v4(&p->key.dst, ip.dst);
	p->key.protocol = ip.protocol;
	p->transport = at + (ip.version_length & 0x0f) * 4;
	p->length = bpf_ntohs(ip.length);
	p->ttl = ip.ttl;
	p->tos = ip.tos;
	p->v6 = 0;
	fragment = bpf_ntohs(ip.fragment);
	p->later_fragment = (fragment & IP4_FRAGMENT_OFFSET) != 0;
	if (p->later_fragment)
		return with_fragments(p, ip.id, 0);
	parsed = parse_transport(skb, p);
	if (parsed == PARSED && (fragment & IP4_MORE_FRAGMENTS))
		return with_fragments(p, ip.id, 1);
	return parsed;
}

static __always_inline int parse6(struct __sk_buff *skb, struct packet *p, __u32 at)
{
	struct ip6_header ip;
	__u8 extension[8];
	__u32 id = 0;
	int fragmented = 0;
	int parsed;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
		return PARSED_NOT;
	p->key.src = ip.src;
	p->key.dst = ip.dst;
	p->key.protocol = ip.next_header;
	p->transport = at + sizeof(ip);
	p->length = bpf_ntohs(ip.payload_len) + sizeof(ip);
	p->ttl = ip.hop_limit;
	p->tos = 0;
	p->v6 = 1;
	p->later_fragment = 0;
#pragma unroll
	for (int n = 0; n < MAX_EXTENSIONS; n++) {
		__u8 header = p->key.protocol;

		if (header != IP6_HOP_BY_HOP && header != IP6_ROUTING && header != IP6_FRAGMENT &&
		    header != IP6_DESTINATION)
			break;
		if (bpf_skb_load_bytes(skb, p->transport, extension, 8))
			return PARSED_NOT;
		p->key.protocol = extension[0];
		if (header == IP6_FRAGMENT) {
			__u16 place = (__u16)extension[2] << 8 | extension[3];

			__builtin_memcpy(&id, extension + 4, 4);
			fragmented = (place & (IP6_FRAGMENT_OFFSET | IP6_MORE_FRAGMENTS)) != 0;
			p->later_fragment = (place & IP6_FRAGMENT_OFFSET) != 0;
			p->transport += 8;
			if (p->later_fragment)
				return with_fragments(p, id, 0);
		} else {
			p->transport += 8 + (__u32)extension[1] * 8;
		}
	}
	parsed = parse_transport(skb, p);
	if (parsed == PARSED && fragmented)
		return with_fragments(p, id, 1);
	return parsed;
}

static __always_inline int parse(struct __sk_buff *skb, struct packet *p)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return parse4(skb, p, ETH_HLEN);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return parse6(skb, p, ETH_HLEN);
	return PARSED_NOT;
}

#endif
