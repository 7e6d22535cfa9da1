//! "Did you mean": the candidate nearest to a name that is not there.

/// Longer names are not compared; no name of Kubernetes is longer (RFC 1123 subdomain).
const MAX_LENGTH: usize = 253;

/// ` (did you mean "x"?)` for the candidate with the fewest single-character edits, if at most a third
/// of the name would have to change; else the empty string.
pub(super) fn closest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    let limit = (name.len() / 3).max(1);
    candidates
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= limit)
        .filter(|candidate| candidate.len() <= MAX_LENGTH && name.len() <= MAX_LENGTH)
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|&(distance, _)| distance <= limit)
        .min()
        .map_or_else(String::new, |(_, candidate)| format!(" (did you mean {candidate:?}?)"))
}

/// The number of bytes to insert, delete, replace or swap with their neighbor (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_near() {
        for (name, candidates, hint) in [
            ("detials", &["details", "reviews"][..], " (did you mean \"details\"?)"),
            ("web", &["wbe", "db"], " (did you mean \"wbe\"?)"),
            ("details", &["productpage"], ""),
            ("a", &["b"], " (did you mean \"b\"?)"),
            ("backend", &["backend-v1", "backends"], " (did you mean \"backends\"?)"),
            ("x", &[], ""),
        ] {
            assert_eq!(closest(name, candidates.iter().copied()), hint, "{name}");
        }
    }
}
