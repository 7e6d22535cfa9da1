//! `pilus get`
use super::args::{Format, Get};
use super::client::{Agent, Path, Reply};
use super::{Failure, Output, columns};
use crate::proto::object::did_you_mean;
use crate::proto::value::{Value, to_json_pretty, to_yaml};
use crate::server::admin::resource::{self, Resource};

/// Prints objects as kubectl does.
pub(super) fn get(get: &Get, now: u64) -> Result<Output, Failure> {
    let (kind, name) = match get.kind.split_once('/') {
        Some((kind, name)) if get.name.is_none() => (kind, Some(name)),
        _ => (get.kind.as_str(), get.name.as_deref()),
    };
    let resource = resource::find(kind).ok_or_else(|| unknown(kind))?;
    if name.is_some() && get.all_namespaces && resource.kind.is_namespaced() {
        let text = "error: one object by name cannot be had from all namespaces: give -n NAMESPACE";
        return Err(Failure::Usage(text.to_owned()));
    }
    let namespace = get.namespace.as_deref().unwrap_or("default");
    let one_namespace =
        Some(namespace).filter(|_| resource.kind.is_namespaced() && !get.all_namespaces);
    let path = Path::new(&format!("/v1/objects/{}", resource.kind.as_str()))
        .parameter("namespace", one_namespace)
        .parameter("name", name);
    let reply = Agent::new(get.admin.as_deref())?.ask(&path)?;
    if !reply.ok {
        return Err(refused(&reply));
    }
    Ok(print(get, resource, reply.json, name.is_some(), one_namespace, now))
}

fn unknown(kind: &str) -> Failure {
    let kind_only = kind.split('.').next().unwrap_or(kind);
    let hint = did_you_mean(kind_only, resource::names())
        .map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
    Failure::Wrong(format!("error: the server doesn't have a resource type {kind:?}{hint}"))
}

fn refused(reply: &Reply) -> Failure {
    let (reason, message) = (reply.json.text_at("reason"), reply.json.text_at("message"));
    Failure::Wrong(format!("Error from server ({reason}): {message}"))
}

fn print(
    get: &Get,
    resource: &Resource,
    mut json: Value,
    single: bool,
    namespace: Option<&str>,
    now: u64,
) -> Output {
    if matches!(get.output, Format::Json | Format::Yaml) {
        if !single {
            json.set("metadata", Value::map().with("resourceVersion", ""));
        }
        json.sort();
        let print = if get.output == Format::Json { to_json_pretty } else { to_yaml };
        return Output::good(print(&json));
    }
    let list = [json];
    let items = if single { &list[..] } else { list[0].items_at("items") };
    let namespaces = get.all_namespaces && resource.kind.is_namespaced();
    let wide = get.output == Format::Wide;
    let table = columns::table(resource.kind, items, namespaces, wide, now);
    if table.is_empty() {
        match namespace {
            Some(namespace) => eprintln!("No resources found in {namespace} namespace."),
            None => eprintln!("No resources found"),
        }
        return Output::good(String::new());
    }
    Output::good(table.render())
}
