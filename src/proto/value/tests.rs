use super::*;

fn yaml(text: &str) -> Result<Option<Value>, SyntaxError> {
    parse_yaml(Document { text, lines_before: 0 })
}

fn json_of(text: &str) -> String {
    to_json_compact(&yaml(text).unwrap().unwrap())
}

#[test]
fn scalars_mean_what_kubectl_reads() {
    let table = [
        ("yes", "true"),
        ("On", "true"),
        ("y", "true"),
        ("off", "false"),
        ("N", "false"),
        ("yEs", "\"yEs\""),
        ("010", "8"),
        ("0o10", "8"),
        ("0x1F", "31"),
        ("0b101", "5"),
        ("1_000", "1000"),
        ("-7", "-7"),
        ("+7", "7"),
        ("08", "8.0"),
        ("1e3", "1000.0"),
        ("1.50", "1.5"),
        (".5", "0.5"),
        ("9223372036854775808", "9.223372036854776e18"),
        ("2001-12-15", "\"2001-12-15\""),
        ("1.2.3.4", "\"1.2.3.4\""),
        ("192.168.10.0/24", "\"192.168.10.0/24\""),
        ("12:30:45", "\"12:30:45\""),
        ("fe80::1", "\"fe80::1\""),
        ("-", "[null]"),
        ("'yes'", "\"yes\""),
        ("\"80\"", "\"80\""),
        ("!!str 80", "\"80\""),
        ("!!int 80", "80"),
        ("{a: ~, b: null}", "{\"a\":null,\"b\":null}"),
        ("{80: a, yes: b}", "{\"80\":\"a\",\"true\":\"b\"}"),
    ];
    for (text, json) in table {
        assert_eq!(json_of(text), json, "{text}");
    }
}

#[test]
fn every_node_and_key_has_its_place() {
    let value = yaml("# c\na:\n  - b: 1\n    ü: [x, é, y]\n").unwrap().unwrap();
    let member = value.member("a").unwrap();
    assert_eq!(member.mark, Mark { line: 2, column: 1 });
    let item = &member.value.items()[0];
    assert_eq!(item.mark, Mark { line: 3, column: 5 });
    assert_eq!(item.member("ü").unwrap().mark, Mark { line: 4, column: 5 });
    assert_eq!(item.get("ü").unwrap().items()[2].mark, Mark { line: 4, column: 15 });
    let value = parse_json("{\n \"é\": {\"a\": [1,\n2]}}").unwrap();
    assert_eq!(value.get("é").unwrap().member("a").unwrap().mark, Mark { line: 2, column: 8 });
    assert_eq!(value.path(&["é", "a"]).unwrap().items()[1].mark, Mark { line: 3, column: 1 });
}

#[test]
fn aliases_and_merge_keys_are_resolved() {
    let text = "base: &b {x: 1, z: 2}\nuse:\n  <<: *b\n  z: 3\nagain: *b\n";
    assert_eq!(
        json_of(text),
        r#"{"base":{"x":1,"z":2},"use":{"z":3,"x":1},"again":{"x":1,"z":2}}"#
    );
}

#[test]
fn bombs_and_cycles_end() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..9 {
        let before = level - 1;
        let items = vec![format!("*a{before}"); 10].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let error = yaml(&bomb).unwrap_err();
    assert!(error.message.contains("nodes"), "{error}");
    let error = yaml("a: &a\n  b: *a\n").unwrap_err();
    assert_eq!(error.to_string(), "2:6: an alias inside the node that it stands for");
    let deep = "[".repeat(MAX_DEPTH + 2);
    assert!(yaml(&deep).unwrap_err().message.contains("deep"));
    assert!(parse_json(&deep).unwrap_err().message.contains("deep"));
}

#[test]
fn a_repeated_key_is_refused() {
    let error = yaml("a: 1\nb: 2\na: 3\n").unwrap_err();
    assert_eq!(error.to_string(), "3:1: the key `a` is there already, in line 1");
    let mut many: String = (0..40).map(|at| format!("k{at}: 1\n")).collect();
    assert!(yaml(&many).is_ok());
    many.push_str("k17: 2\n");
    assert_eq!(yaml(&many).unwrap_err().message, "the key `k17` is there already, in line 18");
    let error = parse_json("{\"a\":1,\n\"a\":2}").unwrap_err();
    assert_eq!(error.to_string(), "2:1: the key `a` is there already, in line 1");
}

#[test]
fn documents_are_split_with_their_lines() {
    let text = "# head\n---\na: 1\n--- # two\n# only a comment\n---\n%x: 1\n...\n%YAML 1.1\n---\nb: |\n  ---\n  x\n---text: 1\n";
    let documents = split_documents(text);
    let lines: Vec<(u32, &str)> =
        documents.iter().map(|d| (d.lines_before, d.text.lines().next().unwrap())).collect();
    assert_eq!(lines, [(1, "---"), (5, "---"), (8, "%YAML 1.1")]);
    assert_eq!(split_documents("a: 1").len(), 1);
    assert!(split_documents("\u{feff}# nothing\n---\n---\n").is_empty());
}

#[test]
fn wrong_json_is_refused() {
    for text in [
        "",
        "{",
        "[1,]",
        "{\"a\" 1}",
        "{a:1}",
        "01",
        "1.",
        "-",
        "+1",
        "tru",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\n\"",
        "1 2",
        "{\"a\":1,}",
        "\"\\u12\u{e9}\"",
        "nul",
    ] {
        assert!(parse_json(text).is_err(), "{text:?}");
    }
    assert_eq!(parse_json("\"\\ud83d\\ude00\\u0041\"").unwrap().as_str(), Some("😀A"));
}

#[test]
fn yaml_is_written_as_kubectl_does() {
    let json = r#"{"a":{"b":["x",{"c":1,"d":[]},[1,2]],"e":{}},"f":"80","g":"yes","h":"a: b","i":"l1\nl2\n",
        "j":"","k":null,"m":1.5,"n":"it's: 'q'","o":"*","p":"x\ty","q":"-","r":"no\n","s":"/a*b","80":true}"#;
    let expected = "\
a:
  b:
  - x
  - c: 1
    d: []
  - - 1
    - 2
  e: {}
f: \"80\"
g: \"yes\"
h: 'a: b'
i: |
  l1
  l2
j: \"\"
k: null
m: 1.5
\"n\": 'it''s: ''q'''
o: '*'
p: \"x\\ty\"
q: '-'
r: |
  no
s: /a*b
\"80\": true
";
    assert_eq!(to_yaml(&parse_json(json).unwrap()), expected);
}

#[test]
fn what_is_written_is_read_back() {
    let strings = [
        "",
        " ",
        "a ",
        "yes",
        "010",
        "1e3",
        ".",
        "..",
        "a: b",
        "a #b",
        "#a",
        "a\nb",
        "a\n\nb\n\n",
        "\n",
        " a\nb",
        "a \nb",
        "\ta",
        "a\tb\n",
        "- a",
        "-",
        "-1",
        "--- a",
        "<<",
        "~",
        "null",
        "%a",
        "@",
        "`",
        "'",
        "\"",
        "é",
        "\u{85}",
        "\u{2028}x",
        "\u{0}",
        "\u{feff}",
        "!a",
        "&a",
        "*a",
        "|",
        ">",
        "{}",
        "[]",
        ",",
        "? a",
        "?a",
        ":",
        "a:",
        ":a",
        "0x",
        "1_0",
        ".inf",
        "=",
        "\r",
        "a\r\nb",
        "\u{7f}",
        "\u{e000}",
        "😀",
        "a\nb\n---\nc",
        "...",
    ];
    for text in strings {
        let member = |value| Member { key: text.into(), mark: Mark::default(), value };
        let list = Value::from(vec![Value::string(text), Value::from(vec![Value::string(text)])]);
        let tree = Value::new(Data::Map(vec![member(list)]));
        let expected = to_json_compact(&tree);
        let written = to_yaml(&tree);
        let read = yaml(&written).unwrap_or_else(|e| panic!("{text:?}: {e}: {written}"));
        assert_eq!(to_json_compact(&read.unwrap()), expected, "{written}");
        assert_eq!(to_json_compact(&parse_json(&to_json_pretty(&tree)).unwrap()), expected);
    }
}
