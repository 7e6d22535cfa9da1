//! Questions of the command line to the agent, and the answers.
use std::rc::Rc;

use super::meta::ObjectKey;
use super::objects::Objects;
use super::problem::Problem;
use super::status::Condition;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Everything there is to show, as of one moment: the objects with their statuses. The store sends it to
/// the admin server with each change; whole state.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The objects.
    pub objects: Rc<Objects>,
    /// The merged status of each object that has one.
    pub statuses: Rc<BTreeMap<ObjectKey, ShownStatus>>,
    /// All complaints of all servers, sorted, without repetition, with the second (since 1970) in which
    /// each was first raised.
    pub problems: Rc<Vec<(u64, Problem)>>,
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
}
