//! Which question gets which answer. No sockets here: a test calls [`answer`].
use std::sync::Arc;

use super::explain::{Question, explain};
use super::http::Request;
use super::moment::Moment;
use super::object::select;
use super::state::{State, place_of};
use super::{API_VERSION, list, metrics, resource, routes, status};
use crate::proto::value::{Value, to_json_compact};

/// JSON, as every answer but `/metrics` and `/healthz` is.
pub(super) const JSON: &str = "application/json";
/// The Prometheus text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Which questions a listener answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All.
    Admin,
    /// `/metrics` and `/healthz`: what a scraper on the network may see.
    Metrics,
}

/// An answer's text, made whole or piece by piece.
pub(super) enum Body {
    Whole(String),
    /// Each piece is made when the one before has been written, so that a long answer takes neither
    /// memory nor the loop's time.
    Pieces(Box<dyn Iterator<Item = String>>),
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Body,
}

// === impl Answer ===

impl Answer {
    fn json(status: u16, value: &Value) -> Self {
        Self { status, content_type: JSON, body: Body::Whole(to_json_compact(value) + "\n") }
    }

    /// A failure in the shape of the Kubernetes API (metav1.Status).
    pub(super) fn failure(code: u16, reason: &str, message: &str) -> Self {
        let value = Value::map()
            .with("kind", "Status")
            .with("apiVersion", "v1")
            .with("status", "Failure")
            .with("message", message)
            .with("reason", reason)
            .with("code", code);
        Self::json(code, &value)
    }

    /// A list whose items are made one by one.
    fn list(api_version: &str, kind: &str, items: impl Iterator<Item = Value> + 'static) -> Self {
        let start = format!("{{\"apiVersion\":\"{api_version}\",\"kind\":\"{kind}\",\"items\":[");
        let mut first = true;
        let items = items.map(move |item| {
            let comma = if std::mem::take(&mut first) { "\n" } else { ",\n" };
            format!("{comma}{}", to_json_compact(&item))
        });
        let pieces = std::iter::once(start).chain(items).chain(std::iter::once("]}\n".to_owned()));
        Self { status: 200, content_type: JSON, body: Body::Pieces(Box::new(pieces)) }
    }

    /// The whole text; for tests.
    #[cfg(test)]
    pub(super) fn text(self) -> String {
        match self.body {
            Body::Whole(text) => text,
            Body::Pieces(pieces) => pieces.collect(),
        }
    }
}

/// Answers one question from the state as it is now.
pub(super) fn answer(state: &State, moment: Moment, scope: Scope, request: &Request) -> Answer {
    match (request.path.as_str(), scope) {
        ("/healthz", _) => {
            return Answer {
                status: 200,
                content_type: "text/plain; charset=utf-8",
                body: Body::Whole("ok\n".to_owned()),
            };
        }
        ("/metrics", _) => {
            let text = metrics::metrics(state, moment);
            return Answer { status: 200, content_type: PROMETHEUS, body: Body::Whole(text) };
        }
        (_, Scope::Metrics) => {
            return Answer::failure(404, "NotFound", "only /metrics and /healthz are served here");
        }
        (_, Scope::Admin) => {}
    }
    match request.path.as_str() {
        "/v1/status" => Answer::json(200, &status::status(state, moment)),
        "/v1/config" => Answer::json(200, &status::config_json(state)),
        "/v1/services" => {
            Answer::list(API_VERSION, "ServiceList", list::services(state).into_iter())
        }
        "/v1/addresses" => {
            Answer::list(API_VERSION, "AddressList", list::addresses(state).into_iter())
        }
        "/v1/endpoints" => endpoints(state),
        "/v1/routes" => routes_answer(state),
        "/v1/explain" => explain_answer(state, moment, request),
        path => match path.strip_prefix("/v1/objects/") {
            Some(kind) => objects(state, kind, request),
            None => Answer::failure(404, "NotFound", "the server could not find this path"),
        },
    }
}

fn objects(state: &State, kind: &str, request: &Request) -> Answer {
    let Some(resource) = resource::find(kind) else {
        let message = format!("the server doesn't have a resource type \"{kind}\"");
        return Answer::failure(404, "UnknownResource", &message);
    };
    let found = select(state, resource.kind, request.parameter("namespace"));
    let state = state.clone();
    let Some(name) = request.parameter("name") else {
        return Answer::list("v1", "List", found.into_iter().map(move |it| it.json(&state)));
    };
    match found.iter().find(|object| object.name() == name) {
        Some(object) => Answer::json(200, &object.json(&state)),
        None => {
            let message = format!("{} \"{name}\" not found", resource.qualified());
            Answer::failure(404, "NotFound", &message)
        }
    }
}

fn endpoints(state: &State) -> Answer {
    let state = state.clone();
    let ports = list::service_ports(&state).into_iter();
    let items = ports.flat_map(move |port| list::endpoints_of_port(&state, &port));
    Answer::list(API_VERSION, "EndpointList", items)
}

fn routes_answer(state: &State) -> Answer {
    let addresses = state.listener_addresses();
    let mut sources = Vec::new();
    for listener in state.all_listeners() {
        let own = addresses.get(&place_of(&listener)).cloned().unwrap_or_default();
        let own: Arc<[_]> = own.into();
        for source in routes::sources(&listener) {
            sources.push((Arc::clone(&listener), Arc::clone(&own), source));
        }
    }
    let items = sources
        .into_iter()
        .flat_map(|(listener, addresses, source)| routes::items(&listener, &addresses, &source));
    Answer::list(API_VERSION, "RouteList", items)
}

fn explain_answer(state: &State, moment: Moment, request: &Request) -> Answer {
    let question = Question {
        url: request.parameter("url").unwrap_or_default(),
        method: request.parameter("method").unwrap_or("GET"),
        headers: request.parameters("header").collect(),
        from: request.parameter("from"),
    };
    match explain(state, moment, &question) {
        Ok(value) => Answer::json(200, &value),
        Err(message) => Answer::failure(400, "BadRequest", &message),
    }
}
