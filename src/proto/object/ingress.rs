//! networking.k8s.io/v1 Ingress and IngressClass.
use super::faults::Faults;
use super::names;
use super::service::{mark_of, port_number, text, texts};
use crate::api::meta::{Meta, Str};
use crate::api::object::{
    Ingress, IngressBackend, IngressClass, IngressPath, IngressRule, IngressTls, PathType,
    ServicePortRef,
};
use crate::proto::value::{Data, Value};

pub(super) fn decode(meta: Meta, value: &mut Value, faults: &mut Faults) -> Ingress {
    let empty = Value::map();
    let spec = value.get("spec").unwrap_or(&empty);
    let rules = spec.get("rules").map_or(&[][..], Value::items);
    if rules.is_empty() && spec.get("defaultBackend").is_none() && value.get("spec").is_some() {
        let message = "required, and missing: an Ingress needs rules or a defaultBackend";
        faults.error(mark_of(value, "spec"), "spec.rules", message);
    }
    let default_backend = spec
        .member("defaultBackend")
        .and_then(|member| backend(&member.value, "spec.defaultBackend", faults));
    let rule = |(at, value): (usize, &Value)| IngressRule {
        host: text(value, "host").map(Str::from),
        paths: paths(value, at, faults),
    };
    let rules = rules.iter().enumerate().map(rule).collect();
    let tls = |value: &Value| IngressTls {
        hosts: texts(value, "hosts").map(Str::from).collect(),
        secret: text(value, "secretName").map(Str::from),
    };
    let tls = spec.get("tls").map_or(&[][..], Value::items).iter().map(tls).collect();
    let class = text(spec, "ingressClassName").map(Str::from);
    set_defaults(value);
    Ingress { meta, class, default_backend, rules, tls }
}

fn paths(rule: &Value, rule_at: usize, faults: &mut Faults) -> Vec<IngressPath> {
    let Some(http) = rule.get("http") else { return Vec::new() };
    let list = http.get("paths").map_or(&[][..], Value::items);
    if list.is_empty() && http.get("paths").is_some() {
        let field = format!("spec.rules[{rule_at}].http.paths");
        faults.error(mark_of(http, "paths"), field, "required, and empty");
    }
    let mut paths = Vec::with_capacity(list.len());
    for (at, value) in list.iter().enumerate() {
        let field = || format!("spec.rules[{rule_at}].http.paths[{at}]");
        let path_type = match text(value, "pathType") {
            Some("Exact") => Some(PathType::Exact),
            Some("Prefix") => Some(PathType::Prefix),
            Some("ImplementationSpecific") => Some(PathType::ImplementationSpecific),
            _ => None,
        };
        let path = text(value, "path").unwrap_or_default();
        if let Some(path_type) = path_type
            && let Err(message) = check_path(path, path_type)
        {
            faults.error(mark_of(value, "path"), format!("{}.path", field()), message);
        }
        let backend = value
            .get("backend")
            .and_then(|value| backend(value, &format!("{}.backend", field()), faults));
        if let (Some(path_type), Some(backend)) = (path_type, backend) {
            let path = if path.is_empty() { "/" } else { path };
            paths.push(IngressPath { path: path.into(), path_type, backend });
        }
    }
    paths
}

/// The API server's rules for paths, and that a regular expression is one.
fn check_path(path: &str, path_type: PathType) -> Result<(), String> {
    let is_regex = path_type == PathType::ImplementationSpecific;
    if path.is_empty() && !is_regex {
        return Err("required with this pathType: an absolute path, such as `/`".to_owned());
    }
    if !path.is_empty() && !path.starts_with('/') {
        return Err(format!("`{path}` must begin with `/`"));
    }
    if is_regex {
        return names::compile(path);
    }
    for wrong in ["//", "/./", "/../", "%2f", "%2F"] {
        if path.contains(wrong) {
            return Err(format!("`{path}` must not contain `{wrong}`"));
        }
    }
    for wrong in ["/..", "/."] {
        if path.ends_with(wrong) {
            return Err(format!("`{path}` must not end with `{wrong}`"));
        }
    }
    Ok(())
}

fn backend(value: &Value, field: &str, faults: &mut Faults) -> Option<IngressBackend> {
    match (value.get("service"), value.get("resource")) {
        (Some(_), Some(_)) => {
            let message = "has both `service` and `resource`: one of them";
            faults.error(mark_of(value, "resource"), field, message);
            None
        }
        (None, None) => {
            if matches!(value.data, Data::Map(_)) {
                let message = "required, and missing";
                faults.error(value.mark, format!("{field}.service"), message);
            }
            None
        }
        (None, Some(resource)) => {
            let part = |key| text(resource, key).unwrap_or_default();
            let group = part("apiGroup");
            let slash = if group.is_empty() { "" } else { "/" };
            let name = format!("{group}{slash}{} {}", part("kind"), part("name"));
            Some(IngressBackend::Resource(name))
        }
        (Some(service), None) => {
            let name = text(service, "name").unwrap_or_default();
            if name.is_empty() && service.get("name").is_some() {
                let field = format!("{field}.service.name");
                faults.error(mark_of(service, "name"), field, "required, and empty");
            }
            let port = service_port(service, field, faults)?;
            Some(IngressBackend::Service(name.into(), port))
        }
    }
}

fn service_port(service: &Value, field: &str, faults: &mut Faults) -> Option<ServicePortRef> {
    let port = service.get("port");
    let name = port.and_then(|port| text(port, "name"));
    let number = port.and_then(|port| port.get("number"));
    match (name, number) {
        (Some(_), Some(_)) => {
            let message = "has both `name` and `number`: one of them";
            faults.error(mark_of(service, "port"), format!("{field}.service.port"), message);
            None
        }
        (None, None) => {
            if matches!(service.data, Data::Map(_)) {
                let message = "required: `number` or `name`";
                faults.error(mark_of(service, "port"), format!("{field}.service.port"), message);
            }
            None
        }
        (Some(name), None) => Some(ServicePortRef::Name(name.into())),
        (None, Some(_)) => port_number(port?, "number").map(ServicePortRef::Number),
    }
}

/// An ImplementationSpecific path that was left out is `/`.
fn set_defaults(value: &mut Value) {
    let rules = value.get_mut("spec").and_then(|spec| spec.get_mut("rules"));
    for rule in rules.into_iter().flat_map(Value::items_mut) {
        let paths = rule.get_mut("http").and_then(|http| http.get_mut("paths"));
        for path in paths.into_iter().flat_map(Value::items_mut) {
            path.set_default("path", "/");
        }
    }
}

pub(super) fn class(meta: Meta, value: &Value) -> IngressClass {
    let controller = value.path(&["spec", "controller"]).and_then(Value::as_str);
    IngressClass { meta, controller: controller.unwrap_or_default().into() }
}
