//! "Did you mean …?"

/// Longer words are no typing errors of anything we know.
const LONGEST_WORD: usize = 64;

/// The candidate nearest to `word`, if it is near enough to be a typing error.
pub(super) fn did_you_mean<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let word = word.to_ascii_lowercase();
    if word.chars().count() > LONGEST_WORD {
        return None;
    }
    let near = (word.chars().count() / 3).clamp(1, 3);
    let distances = candidates.into_iter().map(|it| (distance(&word, it), it));
    distances.filter(|(distance, _)| *distance <= near).min().map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, an exchange of neighbours counting as one.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for at in 0..=left.len() {
        for to in 0..=right.len() {
            if at == 0 || to == 0 {
                rows[at][to] = at + to;
                continue;
            }
            let differs = usize::from(left[at - 1] != right[to - 1]);
            let mut best = (rows[at - 1][to] + 1)
                .min(rows[at][to - 1] + 1)
                .min(rows[at - 1][to - 1] + differs);
            let swapped =
                at > 1 && to > 1 && left[at - 1] == right[to - 2] && left[at - 2] == right[to - 1];
            if swapped {
                best = best.min(rows[at - 2][to - 2] + 1);
            }
            rows[at][to] = best;
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_near_and_other_words_are_not() {
        let known = ["ingresses", "services", "svc", "manifests"];
        assert_eq!(did_you_mean("ingreses", known), Some("ingresses"));
        assert_eq!(did_you_mean("Manifets", known), Some("manifests"));
        assert_eq!(did_you_mean("scv", known), Some("svc"));
        assert_eq!(did_you_mean("gateways", known), None);
        assert_eq!(did_you_mean(&"x".repeat(10_000), known), None);
    }
}
