//! The static table (RFC 7541 appendix A) and how to find a name in it.

/// How many entries there are; dynamic ones are counted from the next number on.
pub(super) const LENGTH: usize = 61;
/// The longest name.
const MAX_NAME: usize = 27;

/// Entry `i` has index `i + 1`. Entries of the same name stand together.
pub(super) const ENTRIES: [(&str, &str); LENGTH] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Indexes of the entries ordered by the length of their names, and where each length begins.
const BY_LENGTH: ([u8; LENGTH], [u8; MAX_NAME + 2]) = {
    let mut order = [0; LENGTH];
    let mut starts = [0; MAX_NAME + 2];
    let (mut length, mut at) = (0, 0);
    while length <= MAX_NAME {
        starts[length] = at as u8;
        let mut i = 0;
        while i < LENGTH {
            if ENTRIES[i].0.len() == length {
                order[at] = i as u8 + 1;
                at += 1;
            }
            i += 1;
        }
        length += 1;
    }
    starts[MAX_NAME + 1] = at as u8;
    (order, starts)
};
static ORDER: [u8; LENGTH] = BY_LENGTH.0;
static STARTS: [u8; MAX_NAME + 2] = BY_LENGTH.1;
static TABLE: [(&str, &str); LENGTH] = ENTRIES;

/// Name and value of an index.
#[inline]
pub(super) fn get(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    let (name, value) = TABLE.get(index.checked_sub(1)?)?;
    Some((name.as_bytes(), value.as_bytes()))
}

/// The index of the first entry with this name, and of the one that has the value too.
pub(super) fn find(name: &[u8], value: &[u8]) -> Option<(usize, Option<usize>)> {
    let (start, end) = (*STARTS.get(name.len())?, *STARTS.get(name.len() + 1)?);
    let mut first = None;
    for &index in &ORDER[usize::from(start)..usize::from(end)] {
        let (known, its_value) = TABLE[usize::from(index) - 1];
        if known.as_bytes() == name {
            if its_value.as_bytes() == value {
                return Some((usize::from(index), Some(usize::from(index))));
            }
            first = first.or(Some(usize::from(index)));
        } else if first.is_some() {
            break;
        }
    }
    first.map(|index| (index, None))
}
