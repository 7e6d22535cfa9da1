/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel programs and user space share: map keys, map values, counters.
 *
 * Every layout here is mirrored in src/io/bpf/abi.rs, which asserts sizes and offsets, and
 * described in bpf/README.md. Addresses are always 16 bytes in network order; IPv4 addresses
 * are IPv4-mapped (RFC 4291 section 2.5.5.2), so one map serves both families. All other
 * integers are in host order.
 */
#ifndef PILUS_H
#define PILUS_H

#include <linux/bpf.h>

/* Address entries over all interfaces; also the size of Cilium's responder map (L2-08). */
#define MAX_ADDRESSES 4096
/* Steered address and port pairs: four ports for every address. */
#define MAX_STEERED 16384
/* Listening sockets of one agent; many addresses share one. */
#define MAX_SOCKETS 1024

struct ip_addr {
	__u8 bytes[16];
};

/* Map `addresses`: an announced address on one LAN interface. */
struct address_key {
	__u32 ifindex;
	struct ip_addr addr;
};

enum address_role {
	ROLE_NOT_HELD = 0, /* another node announces it: this one keeps silent */
	ROLE_HELD = 1,	   /* this node answers */
};

struct address_value {
	__u32 role;
	__u8 mac[6]; /* of the interface; what an answer carries */
	__u8 pad[2];
	__u64 replies; /* answers sent, written by the program only */
};

/* Map `liveness`, index 0. The node answers while bpf_ktime_get_ns() < valid_until. */
struct liveness_value {
	__u64 valid_until; /* CLOCK_MONOTONIC, nanoseconds */
};

/* Map `steering`: a service address and port whose connections a socket of ours accepts. */
struct steer_key {
	struct ip_addr addr;
	__u16 port;
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad;
};

struct steer_value {
	__u32 socket; /* index into map `sockets` */
};

/* Map `counters`: one per-CPU u64 for every named outcome. Append only. */
enum counter {
	REPLIED_ARP = 0,
	REPLIED_NDP,
	DROPPED_NOT_HOLDER,	/* another node holds the address */
	DROPPED_STALE,		/* held, but the agent's liveness has run out */
	PASSED_ARP_MALFORMED,	/* short, or not Ethernet/IPv4: never for one of our addresses */
	DROPPED_ARP_BAD_SENDER, /* sender hardware address is a group address or zero */
	PASSED_NDP_MALFORMED,	/* a Neighbor Solicitation too short to name a target */
	DROPPED_NDP_HOP_LIMIT,	/* hop limit is not 255: came through a router */
	DROPPED_NDP_CHECKSUM,
	DROPPED_NDP_LENGTH,	/* longer than NS_MAX, or IPv6 and ICMPv6 lengths disagree */
	DROPPED_NDP_OPTION,	/* option of length zero or beyond the end, bad link address */
	DROPPED_NDP_BAD_SOURCE, /* a DAD probe that breaks RFC 4861 section 7.1.1 */
	DROPPED_INTERNAL,	/* a helper refused to build the reply */
	STEERED,
	STEER_NO_SOCKET,     /* ours, but no agent listens */
	STEER_ASSIGN_FAILED, /* the socket is of another family or protocol */
	COUNTERS,
};

_Static_assert(sizeof(struct address_key) == 20, "AddressKey");
_Static_assert(sizeof(struct address_value) == 24, "AddressValue");
_Static_assert(__builtin_offsetof(struct address_value, replies) == 16, "AddressValue.replies");
_Static_assert(sizeof(struct steer_key) == 20, "SteerKey");
_Static_assert(__builtin_offsetof(struct steer_key, port) == 16, "SteerKey.port");
_Static_assert(COUNTERS == 16, "Counter::ALL");

#endif
