//! What must hold for any text that is read as a manifest.
use super::{Context, Decoded, Life, Outcome, decode};
use crate::api::meta::ObjectKey;
use crate::api::problem::Severity;
use crate::proto::value::{
    Document, Value, parse_json, parse_json_stream, parse_yaml, split_documents, to_json_compact,
    to_json_pretty, to_yaml,
};

/// Any bytes as a YAML and as a JSON file: reading ends, an object has errors or is decoded, and values
/// survive being written.
///
/// # Panics
/// If one of that is not so.
pub fn fuzz_manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for document in split_documents(text) {
        if let Ok(Some(value)) = parse_yaml(document) {
            round_trip(&value);
            check_decoding(value);
        }
    }
    for value in parse_json_stream(text).0 {
        round_trip(&value);
        check_decoding(value);
    }
}

fn check_decoding(value: Value) {
    let life = |_: &ObjectKey, _: u64| Life { generation: 1, created: 0 };
    for Decoded { outcome, problems, .. } in
        decode(value, Context { file: &"f".into(), served: false, life: &life })
    {
        let has_errors = problems.iter().any(|problem| problem.severity == Severity::Error);
        let is_broken = matches!(outcome, Outcome::Broken(_));
        assert_eq!(has_errors, is_broken, "{outcome}: {problems:?}");
        for problem in &problems {
            assert!(!problem.message.is_empty(), "a problem without a message");
        }
    }
}

/// JSON and YAML made of a value must be read as that value again.
fn round_trip(value: &Value) {
    let json = to_json_compact(value);
    let read = parse_json(&to_json_pretty(value)).map(|value| to_json_compact(&value));
    assert_eq!(read.as_ref(), Ok(&json), "JSON is not read again as it was written");
    let yaml = to_yaml(value);
    let read = parse_yaml(Document { text: &yaml, lines_before: 0 });
    let read = read.map(|value| value.map_or_else(|| "null".into(), |v| to_json_compact(&v)));
    assert_eq!(read, Ok(json), "YAML is not read again as it was written:\n{yaml}");
}
