//! The forms of names, labels and addresses that Kubernetes asks for.
use std::net::IpAddr;

use crate::api::address::Network;

/// RFC 1123 label: lower-case letters, digits and `-`, at most 63.
pub(super) fn dns_label(text: &str) -> Result<(), String> {
    if is_dns_label(text) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is not a valid name: lower-case letters, digits and `-`, beginning and ending with a \
         letter or digit, at most 63 characters (RFC 1123 label)"
    ))
}

/// RFC 1035 label: as [`dns_label`], beginning with a letter.
pub(super) fn dns_1035_label(text: &str) -> Result<(), String> {
    if is_dns_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is not a valid name: lower-case letters, digits and `-`, beginning with a letter and \
         ending with a letter or digit, at most 63 characters (RFC 1035 label)"
    ))
}

/// RFC 1123 subdomain: labels joined by dots, at most 253 characters.
pub(super) fn dns_subdomain(text: &str) -> Result<(), String> {
    if is_dns_subdomain(text) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is not a valid name: lower-case letters, digits, `-` and `.`, beginning and ending \
         with a letter or digit, at most 253 characters (RFC 1123 subdomain)"
    ))
}

fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Like [`is_dns_label`] without the length: Kubernetes bounds only the whole subdomain.
fn is_dns_subdomain(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    (1..=253).contains(&text.len()) && text.split('.').all(is_part)
}

/// A host of an Ingress: a subdomain, or `*.` and one.
pub(super) fn host(text: &str) -> Result<(), String> {
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("`{text}` is an IP address; a host must be a DNS name"));
    }
    if is_dns_subdomain(text) {
        return Ok(());
    }
    if let Some(rest) = text.strip_prefix("*.") {
        if is_dns_subdomain(rest) {
            return Ok(());
        }
    } else if text.contains('*') {
        return Err(format!(
            "`{text}` is not a valid host: `*` may only be the whole first label, as in `*.example.com`"
        ));
    }
    let hint = if text.contains(':') {
        "; a port does not belong here"
    } else if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        "; write it in lower case"
    } else {
        ""
    };
    Err(format!("`{text}` is not a valid host: a DNS name, or `*.` and a DNS name{hint}"))
}

/// The key of a label or annotation: `[prefix/]name`.
pub(super) fn qualified_name(text: &str) -> Result<(), String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if prefix.is_some_and(|prefix| !is_dns_subdomain(prefix)) || !is_label_word(name) {
        return Err(format!(
            "`{text}` is not a valid key: a name of at most 63 letters, digits, `-`, `_` and `.`, \
             beginning and ending with a letter or digit, optionally after a DNS name and `/`"
        ));
    }
    Ok(())
}

/// The value of a label; empty is fine.
pub(super) fn label_value(text: &str) -> Result<(), String> {
    if text.is_empty() || is_label_word(text) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is not a valid label value: at most 63 letters, digits, `-`, `_` and `.`, beginning \
         and ending with a letter or digit"
    ))
}

fn is_label_word(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= 63
        && edge(text.as_bytes().first())
        && edge(text.as_bytes().last())
        && text.bytes().all(inner)
}

/// The name of a port (RFC 6335 service name): at most 15 lower-case letters, digits and `-`, at least
/// one letter, no `-` at an end or beside another.
pub(super) fn port_name(text: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_valid = (1..=15).contains(&text.len())
        && text.bytes().all(inner)
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--");
    if is_valid {
        return Ok(());
    }
    let hint = if text.parse::<u16>().is_ok() {
        format!("; write the number {text} without quotes")
    } else {
        String::new()
    };
    Err(format!(
        "`{text}` is not a valid port name: at most 15 lower-case letters, digits and `-`, with a \
         letter{hint}"
    ))
}

/// A key of a Secret or ConfigMap.
pub(super) fn config_key(text: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=253).contains(&text.len()) && text.bytes().all(inner) && text != "." && text != ".." {
        return Ok(());
    }
    Err(format!("`{text}` is not a valid key: letters, digits, `-`, `_` and `.`, at most 253"))
}

/// An IP address.
pub(super) fn ip(text: &str) -> Result<(), String> {
    text.parse::<IpAddr>().map(|_| ()).map_err(|_| {
        let hint = if text.contains('/') { "; a prefix length does not belong here" } else { "" };
        format!("`{text}` is not an IP address, such as 192.0.2.1 or 2001:db8::1{hint}")
    })
}

/// `None`, or an IP address.
pub(super) fn cluster_ip(text: &str) -> Result<(), String> {
    if text == "None" {
        return Ok(());
    }
    ip(text).map_err(|error| format!("{error}, nor `None`"))
}

/// `address/length`.
pub(super) fn cidr(text: &str) -> Result<(), String> {
    parse_cidr(text).map(|_| ())
}

/// Reads `address/length`; the address as written.
pub(super) fn parse_cidr(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || {
        let hint = if text.parse::<IpAddr>().is_ok() {
            "; for one address add its length, /32 (IPv6: /128)"
        } else {
            ""
        };
        format!("`{text}` is not a CIDR, such as 192.0.2.0/24 or 2001:db8::/64{hint}")
    };
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let all_digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let length: u8 = length.parse().ok().filter(|_| all_digits).ok_or_else(wrong)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if length > longest {
        return Err(format!("`{text}`: the prefix length must be 0 to {longest}"));
    }
    Ok((address, length))
}

/// Reads `address/length` as a whole network.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn parse_network(text: &str) -> Result<Network, String> {
    let (written, _) = parse_cidr(text)?;
    let whole = parse_network_of(text)?;
    if whole.address != written {
        let longest = if written.is_ipv4() { 32 } else { 128 };
        return Err(format!(
            "`{text}` has bits beyond its prefix: write {whole} for the network, {written}/{longest} for the address"
        ));
    }
    Ok(whole)
}

/// The network in which the address of `address/length` lies, as Kubernetes takes CIDRs.
///
/// # Errors
/// What is wrong.
pub fn parse_network_of(text: &str) -> Result<Network, String> {
    let (written, length) = parse_cidr(text)?;
    if let IpAddr::V6(it) = written
        && it.to_ipv4_mapped().is_some()
    {
        return Err(format!("`{text}` is an IPv4 network: write it as one"));
    }
    Ok(Network::of(written, length))
}

/// `domain/path`, as an IngressClass' controller.
pub(super) fn domain_prefixed_path(text: &str) -> Result<(), String> {
    let is_valid = text.len() <= 250
        && text.split_once('/').is_some_and(|(domain, path)| {
            is_dns_subdomain(domain) && !path.is_empty() && !path.contains(char::is_whitespace)
        });
    if is_valid {
        return Ok(());
    }
    Err(format!("`{text}` is not a domain, `/` and a path, such as example.com/controller"))
}

/// A regular expression for interface names.
pub(super) fn regex(text: &str) -> Result<(), String> {
    compile(text)
}

/// The memory one compiled expression may take; interface names and paths need a hundredth.
const REGEX_SIZE: usize = 1 << 20;

/// Whether the expression can be used; if not, why.
pub(super) fn compile(text: &str) -> Result<(), String> {
    match regex_lite::RegexBuilder::new(text).size_limit(REGEX_SIZE).build() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("`{text}` is not a valid regular expression: {error}")),
    }
}
