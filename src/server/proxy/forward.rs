//! Whole connections to backends: TCP listeners, TLS that is passed through, and the bytes within TLS that is
//! terminated for another protocol than HTTP.
use std::sync::Arc;

use super::access_log::Passed;
use super::cluster::Lease;
use super::connect::connect_any;
use super::connection::Connection;
use super::limits::TCP_IDLE_TIMEOUT;
use super::stats::count;
use super::tunnel::{self, End};
use super::upstream::Upstream;
use crate::api::route::Route;
use crate::io::reactor::loop_now;

/// Serves a connection whose bytes belong to a backend. If there is none the client sees a reset, which is as near to
/// "connection refused" as one comes once the kernel has accepted.
pub(super) async fn forward(mut connection: Connection, route: &Arc<Route>) {
    if !join(&mut connection, route).await {
        connection.client.reset_on_close();
    }
}

/// Passes bytes between the client and an endpoint of the backend whose turn it is, until that is over. False: there is
/// no endpoint.
pub(super) async fn join(connection: &mut Connection, route: &Arc<Route>) -> bool {
    let began = loop_now();
    let (upstream, bytes) = match reach(connection, route).await {
        Some((upstream, lease)) => {
            let address = lease.member.host.address;
            (Some(address), pass(connection, upstream).await)
        }
        None => (None, (0, 0)),
    };
    if let Some(log) = &connection.shared.access_log {
        let is_tls = connection.is_tls || connection.server_name.is_some();
        log.passed(&Passed {
            client: &connection.peer,
            local: connection.local,
            protocol: if is_tls { "TLS" } else { "TCP" },
            server_name: connection.server_name.as_deref(),
            route,
            began,
            upstream,
            bytes,
        });
    }
    upstream.is_some()
}

/// A connection to an endpoint of the backend whose turn it is.
async fn reach(connection: &Connection, route: &Arc<Route>) -> Option<(Upstream, Lease)> {
    let plan = connection.snapshot.plan(route);
    let cluster = plan.next().and_then(|backend| plan.cluster(backend));
    let Some(cluster) = cluster else {
        count(|c| c.no_endpoint.add());
        return None;
    };
    connect_any(connection, cluster).await
}

/// Passes bytes in both directions until that is over; how many to the endpoint, and to the client.
async fn pass(connection: &mut Connection, mut upstream: Upstream) -> (u64, u64) {
    let client = End {
        stream: &mut connection.client,
        input: &mut connection.input,
        pending: &mut connection.to_client,
    };
    let upstream = End {
        stream: &mut upstream.stream,
        input: &mut upstream.input,
        pending: &mut connection.to_upstream,
    };
    tunnel::run(client, upstream, TCP_IDLE_TIMEOUT).await
}
