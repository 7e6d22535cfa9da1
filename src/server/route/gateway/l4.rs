//! TLSRoutes, TCPRoutes and UDPRoutes (spec 5.7, 5.8).
use super::backend::{Backends, Use};
use super::filter::Findings;
use crate::api::meta::{Kind, ObjectKey};
use crate::api::object::gateway_route::L4Route;
use crate::api::route::{Action, Route, Target};

/// The route with what was found on the way.
pub(super) fn compile(
    backends: &mut Backends<'_, '_>,
    of: Use<'_>,
    kind: Kind,
    route: &L4Route,
) -> (Route, Findings) {
    let mut findings = Findings::default();
    let all: Vec<_> = route
        .backends
        .iter()
        .enumerate()
        .map(|(at, reference)| {
            let field = format!("spec.rules[0].backendRefs[{at}]");
            let (mut backend, _) = findings.resolve(backends, of, reference, &field);
            if !reference.filters.is_empty() {
                let why = "filters are not possible here";
                backend.target = Target::Refuse(500, why.to_owned());
            }
            backend
        })
        .collect();
    let action = if all.iter().all(|backend| backend.weight == 0) {
        Action::Refuse(500, "no backend has a weight".to_owned())
    } else {
        Action::Forward(all)
    };
    let key = ObjectKey { kind, name: route.meta.name.clone() };
    let origins = vec![(key, "spec.rules[0]".to_owned())];
    (Route { origins, name: route.rule_name.clone(), ..Route::new(action) }, findings)
}
