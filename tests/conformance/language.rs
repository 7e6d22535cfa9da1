//! The language of the scenario files: what each line means. README.md of this directory describes it.
use std::path::Path;

/// One situation.
pub(crate) struct Scenario {
    /// The published test it corresponds to.
    pub(crate) test: String,
    pub(crate) features: Vec<String>,
    pub(crate) steps: Vec<Step>,
}

/// A line, with the lines that belong to it, and its number for messages.
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) what: What,
}

pub(crate) enum What {
    /// `+`: an object comes or changes.
    Apply(Block),
    /// `-`: an object goes.
    Delete { kind: String, name: String },
    /// `?`: what its status says.
    Status(StatusLine),
    /// A request and its result.
    Request(RequestLine),
}

/// `+ KIND NAME @PARENT… {metadata}: SHORT` and the indented lines below it.
#[derive(Clone, Default)]
pub(crate) struct Block {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) parents: Vec<String>,
    /// More fields of `metadata`, in YAML's flow style without the braces.
    pub(crate) metadata: String,
    pub(crate) short: String,
    pub(crate) body: Vec<String>,
}

/// `? KIND NAME[.LISTENER][@PARENT]: TOKENS`
pub(crate) struct StatusLine {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) listener: Option<String>,
    pub(crate) parent: Option<String>,
    pub(crate) wanted: Vec<String>,
}

/// `METHOD SCHEME://GATEWAY[:PORT]/PATH TOKENS -> TOKENS`
pub(crate) struct RequestLine {
    pub(crate) text: String,
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) gateway: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) given: Vec<(String, String)>,
    pub(crate) wanted: Vec<(String, String)>,
}

/// Reads a file of scenarios. `NS` in it stands for the namespace of the scenario.
pub(crate) fn read(file: &str) -> Vec<Scenario> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let mut scenarios: Vec<Scenario> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = format!("{file}:{}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(head) = line.strip_prefix("== ") {
            let (test, features) = head.split_once(' ').unwrap_or((head, ""));
            let features = features.split(' ').filter(|f| !f.is_empty()).map(str::to_owned);
            scenarios.push(Scenario {
                test: test.to_owned(),
                features: features.collect(),
                steps: Vec::new(),
            });
            continue;
        }
        let scenario = scenarios.last_mut().unwrap_or_else(|| panic!("{at}: no scenario yet"));
        let line = with_namespace(line, &scenario.namespace());
        if let Some(more) = line.strip_prefix("  ") {
            match &mut scenario.steps.last_mut().unwrap().what {
                What::Apply(block) => block.body.push(more.to_owned()),
                _ => panic!("{at}: only objects have a body"),
            }
            continue;
        }
        let what = parse(&line).unwrap_or_else(|| panic!("{at}: cannot read: {line}"));
        scenario.steps.push(Step { line: number + 1, what });
    }
    scenarios
}

fn parse(line: &str) -> Option<What> {
    if let Some(rest) = line.strip_prefix("+ ") {
        return Some(What::Apply(block(rest)?));
    }
    if let Some(rest) = line.strip_prefix("- ") {
        let (kind, name) = rest.split_once(' ')?;
        return Some(What::Delete { kind: kind.to_owned(), name: name.to_owned() });
    }
    if let Some(rest) = line.strip_prefix("? ") {
        return Some(What::Status(status_line(rest)?));
    }
    Some(What::Request(request_line(line)?))
}

fn block(text: &str) -> Option<Block> {
    let (head, short) = match text.split_once(": ") {
        // A colon within braces belongs to the metadata.
        Some((head, short)) if head.matches('{').count() == head.matches('}').count() => {
            (head, short)
        }
        _ => (text, ""),
    };
    let (head, metadata) = match head.split_once(" {") {
        Some((head, metadata)) => (head, metadata.rsplit_once('}')?.0),
        None => (head, ""),
    };
    let mut words = head.trim_end_matches(':').split(' ').filter(|word| !word.is_empty());
    let kind = words.next()?.to_owned();
    let (parents, names): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with('@'));
    Some(Block {
        kind,
        name: names.join(" "),
        parents: parents.iter().map(|parent| parent[1..].to_owned()).collect(),
        metadata: metadata.to_owned(),
        short: short.to_owned(),
        body: Vec::new(),
    })
}

fn status_line(text: &str) -> Option<StatusLine> {
    let (head, wanted) = text.split_once(": ")?;
    let (kind, name) = head.split_once(' ')?;
    let (name, parent) = match name.split_once('@') {
        Some((name, parent)) => (name, Some(parent.to_owned())),
        None => (name, None),
    };
    let (name, listener) = match name.split_once('.') {
        Some((name, listener)) if matches!(kind, "Gateway" | "ListenerSet") => {
            (name, Some(listener.to_owned()))
        }
        _ => (name, None),
    };
    let wanted = wanted.split(' ').map(str::to_owned).collect();
    Some(StatusLine { kind: kind.to_owned(), name: name.to_owned(), listener, parent, wanted })
}

fn request_line(text: &str) -> Option<RequestLine> {
    let (given, wanted) = text.split_once(" -> ")?;
    let mut given = tokens(given).into_iter();
    let (method, url) = (given.next()?.0, given.next()?);
    let url = if url.1.is_empty() { url.0 } else { format!("{}={}", url.0, url.1) };
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (gateway, port) = match authority.split_once(':') {
        Some((gateway, port)) => (gateway, port.parse().ok()?),
        None => (authority, if scheme == "https" || scheme == "tls" { 443 } else { 80 }),
    };
    Some(RequestLine {
        text: text.to_owned(),
        method,
        scheme: scheme.to_owned(),
        gateway: gateway.to_owned(),
        port,
        path: path.to_owned(),
        given: given.collect(),
        wanted: tokens(wanted),
    })
}

/// Words, each cut at its first `=`; quotes hold one together.
fn tokens(text: &str) -> Vec<(String, String)> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    let cut = |word: String| match word.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (word, String::new()),
    };
    words.into_iter().filter(|word| !word.is_empty()).map(cut).collect()
}

fn with_namespace(line: &str, namespace: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("NS") {
        let before = rest[..at].chars().next_back().or(out.chars().next_back());
        let after = rest[at + 2..].chars().next();
        let alone = ![before, after].iter().any(|c| c.is_some_and(|c| c.is_ascii_alphanumeric()));
        out += &rest[..at];
        out += if alone { namespace } else { "NS" };
        rest = &rest[at + 2..];
    }
    out + rest
}

// === impl Scenario ===

impl Scenario {
    /// Each has a namespace of its own.
    pub(crate) fn namespace(&self) -> String {
        self.test.to_lowercase()
    }
}

/// A name with or without its namespace.
pub(crate) fn namespaced<'a>(name: &'a str, default: &'a str) -> (&'a str, &'a str) {
    name.split_once('/').unwrap_or((default, name))
}
