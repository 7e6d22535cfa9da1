/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the service programs and user space share: frontends, backends, flows. Mirrored in
 * src/io/bpf/service_abi.rs. Addresses as in pilus.h; ports in network order here, because
 * they are compared with packets and never counted with.
 */
#ifndef SERVICE_H
#define SERVICE_H

#include "pilus.h"

/* Frontends: addresses times ports. */
#define MAX_FRONTENDS 65536
/* Places behind them; Maglev tables name them with 16 bits. */
#define MAX_BACKENDS 16384
/* Slots of a Maglev table: prime, and 25 for each of ten backends. */
#define MAGLEV_SLOTS 251
/* Flows unless user space sizes the map by the machine's memory. Two for a connection. */
#define MAX_FLOWS 65536
/* Datagrams in fragments that are under way. */
#define MAX_FRAGMENTED 4096
/* Clients that stay with their backend. */
#define MAX_AFFINE 65536
/* Ranges of clients that may use a frontend. */
#define MAX_SOURCES 16384
#define NO_BACKEND 0xffff
/* Interfaces of a node: its Pods' and more. */
#define MAX_INTERFACES 4096

/* Map `frontends`. */
struct frontend_key {
	struct ip_addr addr;
	__be16 port;   /* 0 with ICMP: an echo request is answered */
	__u8 protocol; /* IPPROTO_TCP, _UDP, _SCTP; _ICMP for echo requests of both families */
	__u8 pad;
};

enum frontend_flag {
	FRONTEND_LOCAL_OUTSIDE = 1, /* clients outside: backends of this node only */
	FRONTEND_LOCAL_INSIDE = 2,  /* Pods and the node: backends of this node only */
	FRONTEND_SOURCES = 4,	    /* only clients in map `sources` */
};

struct frontend_value {
	__u32 id;	/* of its Maglev tables */
	__u32 affinity; /* seconds a client stays with a backend; 0: none */
	__u32 flags;
	__u16 backends; /* in the table of all */
	__u16 local;	/* in the table of this node's */
};

/* Map `maglev`. */
struct maglev_key {
	__u32 id;
	__u32 local; /* 1: backends of this node only */
};

struct maglev_value {
	__u16 slots[256]; /* MAGLEV_SLOTS indices into `backends`; a power of two for the verifier */
};

enum reach {
	REACH_NONE = 0,	     /* the slot is empty */
	REACH_LOCAL = 1,     /* rewrite and forward; answers come back through here */
	REACH_HOST = 2,	     /* rewrite and deliver to this node */
	REACH_NODE = 3,	     /* hand over to the node `via` as it is; a client inside is forwarded */
	REACH_ELSEWHERE = 4, /* rewrite the source too */
};

/* Map `backends`, by index. */
struct backend_value {
	struct ip_addr addr;
	struct ip_addr via;
	__u32 generation; /* of the slot: flows of its former owner notice */
	__u32 ifindex;	  /* the way there; 0: the kernel's forwarding knows it */
	__be16 port;
	__u16 mtu; /* of that interface; longer packets are the kernel's business; 0: none is */
	__u8 reach;
	__u8 pad[3];
};

/* Map `flows`: the packets of a connection in one direction, as they arrive. */
struct flow_key {
	struct ip_addr src;
	struct ip_addr dst;
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 pad[3];
};

enum flow_state {
	FLOW_NEW = 0,	  /* nothing has come back */
	FLOW_LIVE = 1,	  /* both ends have spoken */
	FLOW_CLOSING = 2, /* a FIN or RST has passed */
};

enum flow_kind {
	FLOW_TO_BACKEND = 0,
	FLOW_TO_CLIENT = 1,
};

enum flow_flag {
	FLOW_MACS = 1, /* the frame's addresses are known: the way the other end's packets came */
	FLOW_PEER = 2, /* to the other end of the veth pair at once */
	FLOW_TEACH = 4, /* its next packet shows the way of its counterpart's */
};

struct flow_value {
	struct ip_addr src; /* what its packets get */
	struct ip_addr dst;
	__be16 sport;
	__be16 dport;
	__u16 backend;
	__u8 reach;
	__u8 state;
	__u32 generation; /* of the backend's slot */
	__u8 kind;
	__u8 flags;
	__u16 mtu;
	__u32 ifindex; /* where to; 0: the kernel's forwarding knows it */
	__u8 macs[12]; /* destination and source */
	__u64 seen; /* CLOCK_MONOTONIC ns of a recent packet; at most a second too old */
};

enum inside_flag {
	INSIDE_PEER = 1, /* one end of a veth pair without queue; the other is in a Pod */
};

/* Map `inside`: an interface behind which Pods are, by its index. */
struct inside_value {
	__u32 way; /* what routes name for it: its bridge, or itself */
	__u32 flags;
};

/* Map `affinity`. */
struct affinity_key {
	struct ip_addr client;
	__u32 id;
};

struct affinity_value {
	__u64 seen;
	__u32 generation;
	__u16 backend;
	__u16 pad;
};

/* Map `sources`: who may use a frontend; longest prefix match over id and address. */
struct source_key {
	__u32 prefix; /* 32 bits of id and those of the address */
	__u32 id;
	struct ip_addr addr;
};

/* Map `fragments`: the ports of a datagram's first fragment. */
struct fragment_key {
	struct ip_addr src;
	struct ip_addr dst;
	__u32 id;
	__u8 protocol;
	__u8 pad[3];
};

struct fragment_value {
	__be16 sport;
	__be16 dport;
};

/* Map `settings`, index 0. */
struct settings_value {
	struct ip_addr own4; /* what stands in for a client's address; zero: nothing can */
	struct ip_addr own6;
	__u64 netns; /* cookie of the node's network namespace; 0: its processes are left alone */
};

/* Map `peers`: what a socket of the node asked for. */
struct peer_key {
	__u64 cookie;
	struct ip_addr addr; /* of the backend that it got */
	__be16 port;
	__u16 pad[3];
};

struct peer_value {
	struct ip_addr addr;
	__be16 port;
	__u16 pad[3];
};

/* Map `service_counters`. Append only. */
enum service_counter {
	SERVICE_NEW = 0,       /* connections and datagram flows that got a backend */
	SERVICE_TO_BACKEND,    /* packets */
	SERVICE_TO_CLIENT,     /* packets */
	SERVICE_RELAYED,       /* packets handed to another node */
	SERVICE_NO_BACKEND,    /* refused: nothing is behind the frontend */
	SERVICE_DENIED,	       /* the client is in none of the frontend's ranges */
	SERVICE_NOT_LOCAL,     /* dropped: nothing of this node is behind it, and only that would do */
	SERVICE_NO_PORT,       /* dropped: no free port to stand in for the client's */
	SERVICE_NO_OWN,	       /* dropped: no address to stand in for the client's */
	SERVICE_FULL,	       /* dropped: the flow could not be noted */
	SERVICE_FRAGMENT_LOST, /* a later fragment whose first was not seen */
	SERVICE_ECHOED,	       /* echo requests answered */
	SERVICE_ICMP,	       /* ICMP errors translated */
	SERVICE_TO_STACK,      /* packets that the kernel's own forwarding takes on */
	SERVICE_INTERNAL,      /* a helper refused */
	SERVICE_HOST,	       /* connections and datagrams of the node's own processes */
	SERVICE_COUNTERS,
};

_Static_assert(sizeof(struct frontend_key) == 20, "FrontendKey");
_Static_assert(sizeof(struct frontend_value) == 16, "FrontendValue");
_Static_assert(sizeof(struct maglev_value) == 512, "MaglevValue");
_Static_assert(sizeof(struct backend_value) == 48, "BackendValue");
_Static_assert(sizeof(struct flow_key) == 40, "FlowKey");
_Static_assert(sizeof(struct flow_value) == 72, "FlowValue");
_Static_assert(sizeof(struct inside_value) == 8, "InsideValue");
_Static_assert(sizeof(struct affinity_key) == 20, "AffinityKey");
_Static_assert(sizeof(struct affinity_value) == 16, "AffinityValue");
_Static_assert(sizeof(struct source_key) == 24, "SourceKey");
_Static_assert(sizeof(struct fragment_key) == 40, "FragmentKey");
_Static_assert(sizeof(struct settings_value) == 40, "SettingsValue");
_Static_assert(sizeof(struct peer_key) == 32, "PeerKey");
_Static_assert(sizeof(struct peer_value) == 24, "PeerValue");
_Static_assert(SERVICE_COUNTERS == 16, "ServiceCounter::ALL");

#endif
