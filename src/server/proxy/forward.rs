//! Whole connections to backends: TCP listeners, TLS that is passed through, and the bytes within TLS that is
//! terminated for another protocol than HTTP.
use std::sync::Arc;

use super::cluster::Lease;
use super::connect::connect_any;
use super::connection::Connection;
use super::limits::TCP_IDLE_TIMEOUT;
use super::stats::count;
use super::tunnel::{self, End};
use super::upstream::Upstream;
use crate::api::route::Route;

/// Serves a connection whose bytes belong to a backend. If there is none the client sees a reset, which is as near to
/// "connection refused" as one comes once the kernel has accepted.
pub(super) async fn forward(mut connection: Connection, route: &Arc<Route>) {
    match reach(&connection, route).await {
        Some((upstream, _lease)) => join(&mut connection, upstream).await,
        None => connection.client.reset_on_close(),
    }
}

/// A connection to an endpoint of the backend whose turn it is.
pub(super) async fn reach(
    connection: &Connection,
    route: &Arc<Route>,
) -> Option<(Upstream, Lease)> {
    let plan = connection.snapshot.plan(route);
    let cluster = plan.next().and_then(|backend| plan.cluster(backend));
    let Some(cluster) = cluster else {
        count(|c| c.no_endpoint.add());
        return None;
    };
    connect_any(connection, cluster).await
}

/// Passes bytes in both directions until that is over.
pub(super) async fn join(connection: &mut Connection, mut upstream: Upstream) {
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
    tunnel::run(client, upstream, TCP_IDLE_TIMEOUT).await;
}
