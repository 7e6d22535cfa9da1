//! ObjectMeta: names, labels, identity, and where the fields were written.
use std::hash::{DefaultHasher, Hash, Hasher};

use super::faults::Faults;
use super::{Context, names};
use crate::api::meta::{
    FileOrigin, Kind, Labels, Meta, NamespacedName, ObjectKey, Str, field_hash,
};
use crate::arrange::Arrange;
use crate::proto::value::{Data, Mark, Value};

/// The bound that Kubernetes sets to all annotations of an object together.
const MAX_ANNOTATION_BYTES: usize = 256 << 10;

/// The label that the API server gives every Namespace: its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// How many fields of one object have a place of their own; those after them have that of their nearest
/// parent. 1,000 rules of an Ingress fit.
const MAX_FIELDS: usize = 16_384;

/// The kind, namespace (with its default) and name, if they can be read at all.
pub(super) fn key(kind: Kind, value: &Value) -> Option<ObjectKey> {
    let name = value.path(&["metadata", "name"])?.as_str().filter(|name| !name.is_empty())?;
    let namespace = match value.path(&["metadata", "namespace"]) {
        _ if !kind.is_namespaced() => "",
        Some(namespace) => namespace.as_str().filter(|name| !name.is_empty()).unwrap_or("default"),
        None => "default",
    };
    Some(ObjectKey { kind, name: NamespacedName::new(namespace, name) })
}

/// Checks and reads `metadata`, and fills in what the API server would: namespace, uid, generation and
/// creationTimestamp. `meta.json` is left empty. None if the object has no usable name.
pub(super) fn decode(
    kind: Kind,
    value: &mut Value,
    faults: &mut Faults,
    context: Context<'_>,
) -> Option<Meta> {
    let metadata = value.get("metadata")?;
    let mark = value.member("metadata").map_or(value.mark, |member| member.mark);
    check_name(kind, metadata, mark, faults);
    let mut labels = read_labels(metadata, "labels", faults);
    let annotations = read_labels(metadata, "annotations", faults);
    for (key, text) in &labels {
        if let Err(message) = names::label_value(text) {
            let mark = member_mark(metadata, "labels", key);
            faults.error(mark, format!("metadata.labels.{key}"), message);
        }
    }
    let bytes: usize = annotations.iter().map(|(key, text)| key.len() + text.len()).sum();
    if bytes > MAX_ANNOTATION_BYTES {
        let message = format!("{bytes} bytes of annotations; at most {MAX_ANNOTATION_BYTES}");
        faults.error(mark, "metadata.annotations", message);
    }
    let key = key(kind, value)?;
    let origin = super::origin(context, value);
    let (uid, life) = match context.served {
        true => identity(metadata, &key),
        false => (object_uid(&key), (context.life)(&key, content_hash(value))),
    };
    fill_in(value, &key, &uid, life);
    if kind == Kind::Namespace {
        labels.insert(NAME_LABEL.into(), Str::clone(&key.name.name));
        value.entry("metadata").entry("labels").set(NAME_LABEL, &*key.name.name);
    }
    Some(Meta {
        name: key.name,
        labels,
        annotations,
        uid,
        generation: life.generation,
        created: life.created,
        origin,
        json: "".into(),
    })
}

/// What the API server has given the object. Kinds without a generation change without one.
fn identity(metadata: &Value, key: &ObjectKey) -> (Str, super::Life) {
    let text = |name| metadata.get(name).and_then(Value::as_str);
    let uid = text("uid").map_or_else(|| object_uid(key), Str::from);
    let generation = metadata.get("generation").and_then(Value::as_int).unwrap_or_default();
    let created = text("creationTimestamp").and_then(crate::proto::calendar::unix);
    let generation = u64::try_from(generation).unwrap_or_default();
    (uid, super::Life { generation, created: created.unwrap_or_default() })
}

fn check_name(kind: Kind, metadata: &Value, mark: Mark, faults: &mut Faults) {
    match metadata.member("name") {
        None => {
            let message = if metadata.get("generateName").is_some() {
                "required, and missing (generateName has no effect in a file)"
            } else {
                "required, and missing"
            };
            faults.error(mark, "metadata.name", message);
        }
        Some(member) => {
            let check = match kind {
                Kind::Service => names::dns_1035_label,
                Kind::Namespace => names::dns_label,
                _ => names::dns_subdomain,
            };
            if let Some(name) = member.value.as_str()
                && let Err(message) = check(name)
            {
                faults.error(member.mark, "metadata.name", message);
            }
        }
    }
    if let Some(member) = metadata.member("namespace") {
        let namespace = member.value.as_str().unwrap_or_default();
        if !kind.is_namespaced() {
            let message = format!("a {kind} has no namespace, ignored");
            faults.warn(member.mark, "metadata.namespace", message);
        } else if !namespace.is_empty()
            && let Err(message) = names::dns_label(namespace)
        {
            faults.error(member.mark, "metadata.namespace", message);
        }
    }
}

/// Labels or annotations; values of a wrong type are the schema's to complain about.
fn read_labels(metadata: &Value, field: &str, faults: &mut Faults) -> Labels {
    let mut labels = Labels::new();
    for member in metadata.get(field).map_or(&[][..], Value::members) {
        // Kubernetes takes capitals in the prefix of an annotation.
        let key = if field == "annotations" {
            member.key.to_ascii_lowercase()
        } else {
            member.key.to_string()
        };
        if let Err(message) = names::qualified_name(&key) {
            faults.error(member.mark, format!("metadata.{field}.{}", member.key), message);
        }
        if let Some(text) = member.value.as_str() {
            labels.insert(Str::from(&*member.key), Str::from(text));
        }
    }
    labels
}

fn member_mark(metadata: &Value, field: &str, key: &str) -> Mark {
    let member = metadata.get(field).and_then(|labels| labels.member(key));
    member.map_or(metadata.mark, |member| member.mark)
}

/// Puts into the value what the API server would add, and takes out what it hides.
fn fill_in(value: &mut Value, key: &ObjectKey, uid: &str, life: super::Life) {
    let metadata = value.entry("metadata");
    for hidden in ["managedFields", "selfLink", "generateName", "resourceVersion"] {
        metadata.remove(hidden);
    }
    if key.kind.is_namespaced() {
        metadata.set("namespace", &*key.name.namespace);
    } else {
        metadata.remove("namespace");
    }
    metadata.set("uid", uid);
    metadata.set("generation", i64::try_from(life.generation).unwrap_or(i64::MAX));
    if life.created > 0 {
        metadata.set("creationTimestamp", crate::proto::calendar::rfc3339(life.created));
    } else {
        metadata.remove("creationTimestamp");
    }
}

/// The same on every node and at every start: made of kind, namespace and name (RFC 9562, version 8).
pub fn object_uid(key: &ObjectKey) -> Str {
    let text = key.to_string();
    let half = |seed: u64| {
        let hash = text
            .bytes()
            .fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let high = half(0xcbf2_9ce4_8422_2325) & !0xf000 | 0x8000;
    let low = half(0x8422_2325_cbf2_9ce4) & !(0b11 << 62) | 0b10 << 62;
    let (time_low, time_mid, time_high) = (high >> 32, high >> 16 & 0xffff, high & 0xffff);
    let (clock, node) = (low >> 48, low & 0xffff_ffff_ffff);
    format!("{time_low:08x}-{time_mid:04x}-{time_high:04x}-{clock:04x}-{node:012x}").into()
}

/// A hash of everything but metadata and status: when it changes, the generation does.
fn content_hash(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    for member in value.members() {
        if !matches!(&*member.key, "metadata" | "status") {
            member.key.hash(&mut hasher);
            hash_value(&member.value, &mut hasher);
        }
    }
    hasher.finish()
}

fn hash_value(value: &Value, hasher: &mut DefaultHasher) {
    std::mem::discriminant(&value.data).hash(hasher);
    match &value.data {
        Data::Null => {}
        Data::Bool(truth) => truth.hash(hasher),
        Data::Int(number) => number.hash(hasher),
        Data::Float(number) => number.to_bits().hash(hasher),
        Data::String(text) => text.hash(hasher),
        Data::List(items) => {
            items.len().hash(hasher);
            items.iter().for_each(|item| hash_value(item, hasher));
        }
        Data::Map(members) => {
            members.len().hash(hasher);
            for member in members {
                member.key.hash(hasher);
                hash_value(&member.value, hasher);
            }
        }
    }
}

/// The object's place and those of its fields. What is never named by a message (status, data of
/// Secrets, the inside of Pods) is left out, and so is a field that starts where its parent does: it is
/// found through the parent.
pub(super) fn file_origin(file: &Str, value: &Value) -> FileOrigin {
    let mut fields = Vec::new();
    for member in value.members() {
        let hash = field_hash(&member.key);
        push(&mut fields, hash, member.mark);
        let depth = match &*member.key {
            "status" | "data" | "stringData" | "binaryData" => continue,
            "metadata" => 2,
            _ if value.path(&["spec", "containers"]).is_some() => 1,
            _ => usize::MAX,
        };
        collect(&member.value, hash, member.mark, depth, &mut fields);
    }
    fields.arrange();
    fields.dedup_by_key(|field| field.0);
    FileOrigin {
        file: Str::clone(file),
        line: value.mark.line,
        column: value.mark.column,
        fields: fields.into(),
    }
}

fn push(fields: &mut Vec<(u32, u32, u32)>, hash: u32, mark: Mark) {
    if fields.len() < MAX_FIELDS {
        fields.push((hash, mark.line, mark.column));
    }
}

fn collect(
    value: &Value,
    path: u32,
    parent: Mark,
    depth: usize,
    fields: &mut Vec<(u32, u32, u32)>,
) {
    if depth == 0 {
        return;
    }
    for member in value.members() {
        let hash = extend(extend(path, "."), &member.key);
        if member.mark != parent {
            push(fields, hash, member.mark);
        }
        collect(&member.value, hash, member.mark, depth - 1, fields);
    }
    for (at, item) in value.items().iter().enumerate() {
        let hash = extend(path, &format!("[{at}]"));
        if item.mark != parent {
            push(fields, hash, item.mark);
        }
        collect(item, hash, item.mark, depth - 1, fields);
    }
}

/// [`field_hash`] of a longer path.
fn extend(hash: u32, text: &str) -> u32 {
    text.bytes().fold(hash, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_path_is_extended_as_field_hash_makes_it() {
        let hash = extend(extend(field_hash("spec"), ".rules"), "[0]");
        assert_eq!(hash, field_hash("spec.rules[0]"));
    }
}
