/* SPDX-License-Identifier: Apache-2.0 */
/* Neighbor Discovery (RFC 4861 section 7) for announced IPv6 addresses. */
#ifndef NDP_H
#define NDP_H

#include "common.h"

/* <linux/in6.h> has it, but C libraries claim that header. */
#define NEXT_HEADER_ICMPV6 58
#define IP6_LEN 40
#define IP6_NEXT_HEADER_OFFSET (ETH_HLEN + 6)
#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_HOP_LIMIT 255
#define ND_OPTION_SOURCE_LINK 1
#define ND_OPTION_TARGET_LINK 2
#define NA_SOLICITED 0x40000000u
#define NA_OVERRIDE 0x20000000u

/* Solicitation without options. */
#define NS_MIN 24
/* Room for 13 option units: link address, nonce (RFC 3971) and more. Longer ones are refused. */
#define NS_MAX 128
#define NS_MAX_OPTIONS ((NS_MAX - NS_MIN) / 8)

struct ip6 {
	__be32 version_class_flow;
	__be16 payload_len;
	__u8 next_header;
	__u8 hop_limit;
	struct ip_addr src;
	struct ip_addr dst;
} __attribute__((packed));

/* What the ICMPv6 checksum covers, zero-padded: RFC 8200 section 8.1. */
struct ns_checked {
	struct ip_addr src;
	struct ip_addr dst;
	__be32 length;
	__be32 next_header;
	union {
		struct {
			__u8 type;
			__u8 code;
			__be16 checksum;
			__be32 reserved;
			struct ip_addr target;
		} ns;
		__u8 bytes[NS_MAX];
	};
};

struct na {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	struct ip_addr target;
	__u8 option_type;
	__u8 option_len;
	__u8 mac[ETH_ALEN];
} __attribute__((packed));

struct na_checked {
	struct ip_addr src;
	struct ip_addr dst;
	__be32 length;
	__be32 next_header;
	struct na na;
} __attribute__((packed));

struct na_frame {
	struct ethhdr eth;
	struct ip6 ip;
	struct na na;
} __attribute__((packed));

static __always_inline __u16 checksum(void *from, __u32 len)
{
	__u64 sum = bpf_csum_diff(0, 0, from, len, 0);

	sum = (sum & 0xffff) + (sum >> 16 & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline int is_unspecified(const struct ip_addr *addr)
{
	const __u32 *w = (const __u32 *)addr->bytes;

	return !(w[0] | w[1] | w[2] | w[3]);
}

/* ff02::1:ffXX:XXXX (RFC 4291 section 2.7.1). */
static __always_inline int is_solicited_node(const struct ip_addr *addr)
{
	const __u32 *w = (const __u32 *)addr->bytes;

	return w[0] == bpf_htonl(0xff020000) && !w[1] && w[2] == bpf_htonl(1) &&
	       addr->bytes[12] == 0xff;
}

/*
 * Walks the options of a solicitation of `len` bytes and copies a source link-layer address
 * to `mac`. Returns -1 when an option is malformed, 1 when it found an address, else 0.
 */
static __always_inline int source_link(struct __sk_buff *skb, __u32 len, __u8 *mac)
{
	struct {
		__u8 type;
		__u8 len;
		__u8 mac[ETH_ALEN];
	} option;
	__u32 at = NS_MIN;
	int found = 0;

	for (int i = 0; i < NS_MAX_OPTIONS; i++) {
		if (at == len)
			return found;
		if (at + 8 > len ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + IP6_LEN + at, &option, sizeof(option)))
			return -1;
		if (!option.len || at + option.len * 8u > len)
			return -1;
		if (option.type == ND_OPTION_SOURCE_LINK) {
			if (option.len != 1 || !is_station(option.mac))
				return -1;
			__builtin_memcpy(mac, option.mac, ETH_ALEN);
			found = 1;
		}
		at += option.len * 8u;
	}
	return at == len ? found : -1;
}

/* Validates a solicitation (RFC 4861 section 7.1.1); the sender's link address goes to `mac`. */
static __always_inline int refuse_ns(struct __sk_buff *skb, const struct ip6 *ip, __u8 *mac)
{
	struct ns_checked in = {};
	__u32 len = bpf_ntohs(ip->payload_len);
	int option;

	if (ip->hop_limit != ND_HOP_LIMIT)
		return counted(DROPPED_NDP_HOP_LIMIT, VERDICT_DROP);
	if (len < NS_MIN || len > NS_MAX || len % 8)
		return counted(DROPPED_NDP_LENGTH, VERDICT_DROP);
	in.src = ip->src;
	in.dst = ip->dst;
	in.length = bpf_htonl(len);
	in.next_header = bpf_htonl(NEXT_HEADER_ICMPV6);
	if (bpf_skb_load_bytes(skb, ETH_HLEN + IP6_LEN, in.bytes, len))
		return counted(DROPPED_NDP_LENGTH, VERDICT_DROP);
	if (checksum(&in, sizeof(in)))
		return counted(DROPPED_NDP_CHECKSUM, VERDICT_DROP);
	option = source_link(skb, len, mac);
	if (option < 0)
		return counted(DROPPED_NDP_OPTION, VERDICT_DROP);
	if (is_unspecified(&ip->src)) {
		if (option || !is_solicited_node(&ip->dst))
			return counted(DROPPED_NDP_BAD_SOURCE, VERDICT_DROP);
	} else if (ip->src.bytes[0] == 0xff) {
		return counted(DROPPED_NDP_BAD_SOURCE, VERDICT_DROP);
	}
	return VERDICT_PASS;
}

static __always_inline void build_na(struct na_frame *out, const struct ip6 *ns,
				     const struct ip_addr *target, const __u8 *mac)
{
	struct na_checked sum = {};
	int probe = is_unspecified(&ns->src);

	out->eth.h_proto = bpf_htons(ETH_P_IPV6);
	__builtin_memcpy(out->eth.h_source, mac, ETH_ALEN);
	out->ip.version_class_flow = bpf_htonl(6u << 28);
	out->ip.payload_len = bpf_htons(sizeof(struct na));
	out->ip.next_header = NEXT_HEADER_ICMPV6;
	out->ip.hop_limit = ND_HOP_LIMIT;
	out->ip.src = *target;
	if (probe) { /* duplicate address detection: tell all nodes, ff02::1 */
		out->eth.h_dest[0] = 0x33;
		out->eth.h_dest[1] = 0x33;
		out->eth.h_dest[2] = 0;
		out->eth.h_dest[3] = 0;
		out->eth.h_dest[4] = 0;
		out->eth.h_dest[5] = 1;
		out->ip.dst.bytes[0] = 0xff;
		out->ip.dst.bytes[1] = 0x02;
		out->ip.dst.bytes[15] = 0x01;
	} else {
		out->ip.dst = ns->src;
	}
	out->na.type = ND_ADVERTISEMENT;
	out->na.flags = bpf_htonl(probe ? NA_OVERRIDE : NA_SOLICITED | NA_OVERRIDE);
	out->na.target = *target;
	out->na.option_type = ND_OPTION_TARGET_LINK;
	out->na.option_len = 1;
	__builtin_memcpy(out->na.mac, mac, ETH_ALEN);

	sum.src = out->ip.src;
	sum.dst = out->ip.dst;
	sum.length = bpf_htonl(sizeof(struct na));
	sum.next_header = bpf_htonl(NEXT_HEADER_ICMPV6);
	sum.na = out->na;
	out->na.checksum = checksum(&sum, sizeof(sum));
}

static __always_inline int handle_ipv6(struct __sk_buff *skb)
{
	struct address_value *address;
	struct address_key key = { .ifindex = skb->ifindex };
	struct na_frame out = {};
	__u8 next_header, type_code[2];
	struct ip6 ip;
	int verdict;

	/* One byte decides for nearly every packet. Extension headers are not looked behind:
	 * the kernel answers solicitations only for addresses an interface has. */
	if (bpf_skb_load_bytes(skb, IP6_NEXT_HEADER_OFFSET, &next_header, 1) ||
	    next_header != NEXT_HEADER_ICMPV6)
		return VERDICT_PASS;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + IP6_LEN, type_code, 2) ||
	    type_code[0] != ND_SOLICITATION || type_code[1])
		return VERDICT_PASS;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + IP6_LEN + 8, &key.addr, sizeof(key.addr)))
		return counted(PASSED_NDP_MALFORMED, VERDICT_PASS);
	address = bpf_map_lookup_elem(&addresses, &key);
	if (!address)
		return VERDICT_PASS;

	/* Without the option the frame's own source is where the asker can be reached. */
	if (bpf_skb_load_bytes(skb, ETH_ALEN, out.eth.h_dest, ETH_ALEN))
		return counted(DROPPED_INTERNAL, VERDICT_DROP);
	verdict = refuse_ns(skb, &ip, out.eth.h_dest);
	if (verdict != VERDICT_PASS)
		return verdict;
	verdict = silence(address);
	if (verdict != VERDICT_PASS)
		return verdict;

	build_na(&out, &ip, &key.addr, address->mac);
	if (bpf_skb_change_tail(skb, sizeof(out), 0) ||
	    bpf_skb_store_bytes(skb, 0, &out, sizeof(out), 0))
		return counted(DROPPED_INTERNAL, VERDICT_DROP);
	return answered(skb, address, REPLIED_NDP);
}

#endif
