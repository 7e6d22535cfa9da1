//! What fields an object may have, and the walk that compares a value with it.
use super::faults::{Faults, did_you_mean};
use crate::proto::value::{Data, Mark, Member, Value};

/// A test of a string: what is wrong with it, if anything.
pub(super) type Check = fn(&str) -> Result<(), String>;

/// The type of a field.
pub(super) enum Type {
    /// Anything; not looked at.
    Any,
    /// A boolean.
    Bool,
    /// A string.
    Str,
    /// A string that passes the check; the empty string is as good as none.
    Text(Check),
    /// A string that passes the check, also if it is empty.
    Full(Check),
    /// A whole number within these bounds, both included.
    Int(i64, i64),
    /// A port: a number from 1 to 65535, or a name.
    PortOrName,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// A list.
    List(&'static Self),
    /// A list or map with so many entries, both bounds included.
    Many(usize, usize, &'static Self),
    /// A list whose items differ in this member; in themselves if the member has no name.
    Unique(&'static str, &'static Self),
    /// A map from any key.
    Map(&'static Self),
    /// A map with these keys.
    Object(&'static [Field]),
    /// A map with these keys; others are not looked at.
    Open(&'static [Field]),
}

/// One field of an object.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) ty: Type,
    pub(super) rule: Rule,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Optional,
    Required,
    /// Kubernetes knows it, and here it does nothing.
    NoEffect,
    /// The API server fills it in.
    Default(Literal),
}

/// What a field is filled in with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Literal {
    /// A string.
    Text(&'static str),
    /// A number.
    Number(i64),
    /// A map of its own defaults.
    Map,
    /// A list of one map of its own defaults.
    OneMap,
}

/// Where the walk is; turned into text only for a complaint.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

/// A field that may be left out.
pub(super) const fn opt(name: &'static str, ty: Type) -> Field {
    Field { name, ty, rule: Rule::Optional }
}

/// A field that must be there.
pub(super) const fn req(name: &'static str, ty: Type) -> Field {
    Field { name, ty, rule: Rule::Required }
}

/// A field that is there in Kubernetes and has no effect here yet.
pub(super) const fn dead(name: &'static str, ty: Type) -> Field {
    Field { name, ty, rule: Rule::NoEffect }
}

/// A field that the API server fills in.
pub(super) const fn def(name: &'static str, default: Literal, ty: Type) -> Field {
    Field { name, ty, rule: Rule::Default(default) }
}

/// Fills in the defaults. What is filled in has the place of the map it is in.
pub(super) fn fill(value: &mut Value, fields: &'static [Field]) {
    let mark = value.mark;
    let Data::Map(members) = &mut value.data else { return };
    for field in fields {
        if let Rule::Default(literal) = field.rule {
            let data = match literal {
                Literal::Text(text) => Data::String(text.into()),
                Literal::Number(number) => Data::Int(number),
                Literal::Map => Data::Map(Vec::new()),
                Literal::OneMap => Data::List(vec![Value { mark, data: Data::Map(Vec::new()) }]),
            };
            match members.iter_mut().find(|member| &*member.key == field.name) {
                None => {
                    let value = Value { mark, data };
                    members.push(Member { key: field.name.into(), mark, value });
                }
                Some(member) if member.value.data == Data::Null => member.value.data = data,
                Some(_) => {}
            }
        }
    }
    for member in members {
        if let Some(field) = fields.iter().find(|field| field.name == &*member.key) {
            fill_type(&mut member.value, &field.ty);
        }
    }
}

fn fill_type(value: &mut Value, ty: &Type) {
    match ty {
        Type::Many(_, _, inner) | Type::Unique(_, inner) => fill_type(value, inner),
        Type::List(item) => value.items_mut().iter_mut().for_each(|value| fill_type(value, item)),
        Type::Object(fields) | Type::Open(fields) => fill(value, fields),
        _ => {}
    }
}

/// Compares `value` with the fields of its kind.
pub(super) fn check(value: &Value, fields: &'static [Field], faults: &mut Faults) {
    object(value, fields, true, &Path::Root, value.mark, faults);
}

fn walk(value: &Value, ty: &Type, path: &Path<'_>, mark: Mark, faults: &mut Faults) {
    match (ty, &value.data) {
        (Type::Any, _) | (Type::Bool, Data::Bool(_)) | (Type::Str, Data::String(_)) => {}
        (Type::Text(test), Data::String(text)) => {
            if !text.is_empty()
                && let Err(message) = test(text)
            {
                faults.error(mark, path.to_string(), message);
            }
        }
        (Type::Full(test), Data::String(text)) => {
            if let Err(message) = test(text) {
                faults.error(mark, path.to_string(), message);
            }
        }
        (Type::Int(low, high), Data::Int(number)) => {
            if !(low..=high).contains(&number) {
                let message = format!("{number} is out of range: it must be {low} to {high}");
                faults.error(mark, path.to_string(), message);
            }
        }
        (Type::PortOrName, Data::Int(number)) => {
            if !(1..=65535).contains(number) {
                let message = format!("{number} is out of range: a port is 1 to 65535");
                faults.error(mark, path.to_string(), message);
            }
        }
        (Type::PortOrName, Data::String(text)) => {
            if let Err(message) = super::names::port_name(text) {
                faults.error(mark, path.to_string(), message);
            }
        }
        (Type::Enum(words), Data::String(text)) => {
            if !words.contains(&&**text) {
                faults.error(mark, path.to_string(), wrong_word(text, words));
            }
        }
        (Type::List(item_type), Data::List(items)) => {
            for (at, item) in items.iter().enumerate() {
                walk(item, item_type, &Path::Index(path, at), item.mark, faults);
            }
        }
        (Type::Many(low, high, inner), _) => {
            many(value, (*low, *high), path, mark, faults);
            walk(value, inner, path, mark, faults);
        }
        (Type::Unique(key, inner), _) => {
            unique(value.items(), key, path, faults);
            walk(value, inner, path, mark, faults);
        }
        (Type::Map(value_type), Data::Map(members)) => {
            for member in members {
                let path = Path::Field(path, &member.key);
                if member.value.data != Data::Null {
                    walk(&member.value, value_type, &path, member.mark, faults);
                }
            }
        }
        (Type::Object(fields), Data::Map(_)) => object(value, fields, true, path, mark, faults),
        (Type::Open(fields), Data::Map(_)) => object(value, fields, false, path, mark, faults),
        _ => faults.error(mark, path.to_string(), wrong_type(ty, value)),
    }
}

fn many(
    value: &Value,
    (low, high): (usize, usize),
    path: &Path<'_>,
    mark: Mark,
    faults: &mut Faults,
) {
    let count = match &value.data {
        Data::List(items) => items.len(),
        Data::Map(members) => members.len(),
        _ => return,
    };
    if count < low {
        faults.error(mark, path.to_string(), "required, and empty");
    } else if count > high {
        faults.error(
            mark,
            path.to_string(),
            format!("{count} entries; at most {high} are allowed"),
        );
    }
}

fn unique(items: &[Value], key: &str, path: &Path<'_>, faults: &mut Faults) {
    let of = |item: &Value| match key {
        "" => Some((item.data.clone(), item.mark)),
        _ => item.member(key).map(|member| (member.value.data.clone(), member.mark)),
    };
    let keys: Vec<_> = items.iter().map(of).collect();
    for (at, entry) in keys.iter().enumerate() {
        let Some((data, mark)) = entry else { continue };
        let is_first =
            |known: &Option<(Data, Mark)>| known.as_ref().is_some_and(|it| it.0 == *data);
        if let Some(first) = keys[..at].iter().position(is_first) {
            let shown = Value { mark: *mark, data: data.clone() }.plain();
            let item = Path::Index(path, at);
            let field =
                if key.is_empty() { item.to_string() } else { Path::Field(&item, key).to_string() };
            let message = match key {
                "" => format!("`{shown}` is there already, as entry {first}"),
                _ => format!("`{shown}` is the {key} of entry {first} already"),
            };
            faults.error(*mark, field, message);
        }
    }
}

fn object(
    value: &Value,
    fields: &'static [Field],
    strict: bool,
    path: &Path<'_>,
    mark: Mark,
    faults: &mut Faults,
) {
    for member in value.members() {
        let path = Path::Field(path, &member.key);
        match fields.iter().find(|field| field.name == &*member.key) {
            Some(field) if member.value.data != Data::Null => {
                if field.rule == Rule::NoEffect && !faults.lenient {
                    faults.warn(member.mark, path.to_string(), "not supported yet, ignored");
                }
                walk(&member.value, &field.ty, &path, member.mark, faults);
            }
            None if strict && !faults.lenient => {
                let names = fields.iter().map(|field| field.name);
                faults.error(member.mark, path.to_string(), unknown_field(&member.key, names));
            }
            _ => {}
        }
    }
    for field in fields.iter().filter(|field| field.rule == Rule::Required) {
        if value.get(field.name).is_none() {
            let path = Path::Field(path, field.name).to_string();
            faults.error(mark, path, "required, and missing");
        }
    }
}

fn unknown_field<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    match did_you_mean(name, known.clone()) {
        Some(hint) => format!("unknown field (did you mean `{hint}`?)"),
        None => {
            let known: Vec<&str> = known.collect();
            format!("unknown field; known here are {}", known.join(", "))
        }
    }
}

pub(super) fn wrong_word(word: &str, words: &[&str]) -> String {
    let allowed = words.join(", ");
    match did_you_mean(word, words.iter().copied()) {
        Some(hint) => format!("`{word}` is not one of {allowed} (did you mean `{hint}`?)"),
        None => format!("`{word}` is not one of {allowed}"),
    }
}

fn wrong_type(ty: &Type, value: &Value) -> String {
    let found = value.describe();
    match (ty, &value.data) {
        (Type::Str | Type::Text(_) | Type::Full(_) | Type::Enum(_), Data::Bool(truth)) => {
            let words = if *truth { "yes, on, y and true" } else { "no, off, n and false" };
            format!("expected a string, found {found}: {words} are strings only in quotes")
        }
        (
            Type::Str | Type::Text(_) | Type::Full(_) | Type::Enum(_),
            Data::Int(_) | Data::Float(_),
        ) => {
            format!("expected a string, found {found}: put it in quotes")
        }
        (Type::Int(..), Data::String(text)) if text.parse::<i64>().is_ok() => {
            format!("expected a number, found a string: write {text} without quotes")
        }
        (Type::Bool, Data::String(text)) if matches!(&**text, "true" | "false") => {
            format!("expected true or false, found a string: write {text} without quotes")
        }
        _ => format!("expected {}, found {found}", ty.describe()),
    }
}

// === impl Type ===

impl Type {
    const fn describe(&self) -> &'static str {
        match self {
            Self::Any => "anything",
            Self::Bool => "true or false",
            Self::Str | Self::Text(_) | Self::Full(_) | Self::Enum(_) => "a string",
            Self::Int(..) => "a whole number",
            Self::PortOrName => "a port number or name",
            Self::List(_) | Self::Unique(..) => "a list",
            Self::Many(_, _, inner) => inner.describe(),
            Self::Map(_) | Self::Object(_) | Self::Open(_) => "a map",
        }
    }
}

// === impl Path ===

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Path::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Index(parent, at) => write!(f, "{parent}[{at}]"),
        }
    }
}
