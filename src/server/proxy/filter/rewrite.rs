//! Other paths, hosts and places: URLRewrite and RequestRedirect (Gateway API).
use crate::api::route::{Listener, PathMatch, PathRewrite, Redirect};
use crate::proto::http1::{LocalReply, RequestHead};

/// The target after `rewrite`, in pieces: the path changes, the query stays.
pub(in super::super) fn target<'a>(
    target: &'a str,
    matched: PathMatch<'_>,
    rewrite: &'a PathRewrite,
) -> [&'a str; 3] {
    let path_end = target.find('?').unwrap_or(target.len());
    let (path, query) = target.split_at(path_end);
    match rewrite {
        // `OPTIONS *` asks about no path.
        _ if target == "*" => [target, "", ""],
        PathRewrite::Full(full) => [full, query, ""],
        PathRewrite::Prefix(replacement) => {
            let matched_length = match matched {
                PathMatch::Prefix(prefix) => prefix.len(),
                // What these match is the whole.
                PathMatch::Exact(_) | PathMatch::Regex(_) => path.len(),
            };
            let replacement = replacement.trim_end_matches('/');
            let rest = &target[matched_length.min(path_end)..];
            // `/` matched by the prefix `/` has been replaced as a whole.
            let whole = matched_length == 0 && path == "/" && !replacement.is_empty();
            let rest = if whole { query } else { rest };
            let slash = replacement.is_empty() && !rest.starts_with('/');
            [replacement, if slash { "/" } else { "" }, rest]
        }
    }
}

/// Where a redirect sends the client. None: the request has no host, and the redirect gives none.
pub(in super::super) fn redirect<'a>(
    redirect: &'a Redirect,
    head: &RequestHead<'_, 'a>,
    matched: PathMatch<'_>,
    listener: &Listener,
    is_tls: bool,
) -> Option<LocalReply<'a>> {
    let scheme = redirect.scheme.as_deref().unwrap_or(if is_tls { "https" } else { "http" });
    let port = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => {
            if scheme == "https" {
                443
            } else {
                80
            }
        }
        (None, None) => listener.port.0,
    };
    let host = match &redirect.host {
        Some(host) => host,
        None => head.authority?.host(),
    };
    let target = match &redirect.path {
        Some(path) => target(head.target, matched, path),
        None => [head.target, "", ""],
    };
    Some(LocalReply::Redirect { status: redirect.status, scheme, host, port, target })
}

#[cfg(test)]
mod tests {
    use super::target;
    use crate::api::route::{PathMatch, PathRewrite};

    #[test]
    fn the_table_of_the_specification() {
        // Target, matched prefix (without a trailing slash), replacement, and what is asked for.
        let cases = [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo?q=/foo", "/foo", "/", "/?q=/foo"),
            ("/foo?q", "/foo", "/xyz", "/xyz?q"),
            ("/foo/?q", "/foo", "/xyz", "/xyz/?q"),
            ("/a/b?q", "", "/xyz", "/xyz/a/b?q"),
            ("/", "", "/xyz", "/xyz"),
            ("/?q", "", "/xyz", "/xyz?q"),
            ("/?q", "", "/", "/?q"),
            ("*", "", "/xyz", "*"),
        ];
        for (asked, prefix, replacement, wanted) in cases {
            let rewrite = PathRewrite::Prefix(replacement.into());
            let got = target(asked, PathMatch::Prefix(prefix), &rewrite).concat();
            assert_eq!(got, wanted, "{asked} with {prefix} to {replacement}");
        }
        let full = PathRewrite::Full("/one".into());
        for (asked, wanted) in [("/a/b?q=1", "/one?q=1"), ("/", "/one"), ("*", "*")] {
            assert_eq!(target(asked, PathMatch::Prefix(""), &full).concat(), wanted);
        }
        let prefix = PathRewrite::Prefix("/xyz".into());
        assert_eq!(target("/a/b?q", PathMatch::Exact("/a/b"), &prefix).concat(), "/xyz?q");
        assert_eq!(target("/a/b", PathMatch::Regex("/a/."), &prefix).concat(), "/xyz");
    }
}
