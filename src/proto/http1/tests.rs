//! Unit tests of what cannot be seen from outside; the tables are in `tests/http/`.
use super::HeadProgress;
use super::field::{Known, known};

#[test]
fn a_head_is_parsed_again_only_when_a_line_has_ended() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut progress = HeadProgress::default();
    let parses = (1..=bytes.len()).filter(|end| progress.advance(&bytes[..*end])).count();
    assert_eq!(parses, 1 + 3, "the first look and three line ends");
    progress.reset();
    assert!(progress.advance(b"G"), "the next head starts anew");
}

#[test]
fn special_names_are_known_in_any_case_and_no_others() {
    for (name, expected) in [
        ("HOST", Some(Known::Host)),
        ("Content-Length", Some(Known::ContentLength)),
        ("content_LENGTH", Some(Known::FramingLookalike)),
        ("Content-Lengt", None),
        ("Content-Length1", None),
        ("te", Some(Known::Te)),
        ("X-Envoy-Any", Some(Known::XEnvoy)),
        ("X-Envo", None),
        ("x-envoya", None),
        ("X_Forwarded-Proto", Some(Known::OwnLookalike)),
        ("X-Forwarded-Host", None),
        ("", None),
    ] {
        assert_eq!(known(name.as_bytes()), expected, "{name}");
    }
}
