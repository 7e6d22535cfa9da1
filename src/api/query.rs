//! Questions of the command line to the agent, and the answers.
use std::sync::Arc;

use super::meta::ObjectKey;
use super::objects::Objects;
use super::problem::Problem;
use super::status::{Condition, GatewayApiStatus};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Everything there is to show, as of one moment: the objects with their statuses. The store sends it to
/// the admin server with each change; whole state.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The objects.
    pub objects: Arc<Objects>,
    /// The merged status of each object that has one.
    pub statuses: Arc<BTreeMap<ObjectKey, ShownStatus>>,
    /// All complaints of all servers, sorted, without repetition, with the second (since 1970) in which
    /// each was first raised.
    pub problems: Arc<Vec<(u64, Problem)>>,
}

/// The status of one object as it is printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShownStatus {
    /// Conditions with the second of their last transition.
    pub conditions: Vec<(Condition, u64)>,
    /// `status.loadBalancer.ingress[].ip`
    pub load_balancer: Option<Vec<IpAddr>>,
    /// `status.loadBalancer.ingress[].ports`, for Ingresses
    pub ports: Vec<u16>,
    /// What the kinds of Gateway API have besides.
    pub gateway: Option<ShownGateway>,
}

/// What the kinds of Gateway API have in their status besides conditions, with the transitions of the nested ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownGateway {
    /// The status.
    pub status: Arc<GatewayApiStatus>,
    /// The seconds of the last transitions of all nested conditions: those of the listeners, then those of the
    /// parents, in their order.
    pub transitions: Vec<u64>,
}

/// An entry of `listeners[]` or `parents[]`, by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nested {
    /// A listener.
    Listener(usize),
    /// A parent or ancestor.
    Parent(usize),
}

// === impl ShownGateway ===

impl ShownGateway {
    /// The second of the last transition of the condition at `condition` of an entry; 0 if there is no such.
    pub fn since(&self, entry: Nested, condition: usize) -> u64 {
        let listeners = self.status.listeners.iter().map(|it| it.conditions.len());
        let parents = self.status.parents.iter().map(|it| it.conditions.len());
        let before: usize = match entry {
            Nested::Listener(at) => listeners.take(at).sum(),
            Nested::Parent(at) => listeners.sum::<usize>() + parents.take(at).sum::<usize>(),
        };
        self.transitions.get(before + condition).copied().unwrap_or(0)
    }
}
