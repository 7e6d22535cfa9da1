//! The examples of RFC 7541 appendix C, and what is wrong.
use super::decode::HpackError;
use super::{Decoder, ENCODER_TABLE_BYTES, Encoder, huffman};

type Fields = Vec<(String, String)>;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let digit = |d: u8| (d as char).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, HpackError> {
    let mut fields = Vec::new();
    decoder.decode(block, &mut |name, value| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        fields.push((text(name), text(value)));
    })?;
    Ok(fields)
}

/// Decodes blocks one after the other; the expected fields are lines `name: value`.
fn check(prefix: &str, examples: &[(&str, &str)]) {
    let mut decoder = Decoder::new();
    assert_eq!(decode(&mut decoder, &bytes(prefix)), Ok(Vec::new()));
    for (block, expected) in examples {
        let fields = decode(&mut decoder, &bytes(block)).unwrap();
        let text: Vec<String> = fields.iter().map(|(n, v)| format!("{n}: {v}")).collect();
        assert_eq!(text.join("\n"), *expected, "{block}");
    }
}

const REQUESTS: [&str; 3] = [
    ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com",
    ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache",
    ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\n\
     custom-key: custom-value",
];

#[test]
fn requests_without_huffman_code_are_those_of_c_3() {
    let blocks = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    check("", &[(blocks[0], REQUESTS[0]), (blocks[1], REQUESTS[1]), (blocks[2], REQUESTS[2])]);
}

#[test]
fn requests_with_huffman_code_are_those_of_c_4() {
    let blocks = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    check("", &[(blocks[0], REQUESTS[0]), (blocks[1], REQUESTS[1]), (blocks[2], REQUESTS[2])]);
}

#[test]
fn responses_with_eviction_are_those_of_c_6() {
    // The examples have a table of 256 bytes.
    check(
        "3fe101",
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n\
                 location: https://www.example.com",
            ),
            (
                "4883 640e ffc1 c0bf",
                ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n\
                 location: https://www.example.com",
            ),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\n\
                 location: https://www.example.com\ncontent-encoding: gzip\n\
                 set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ],
    );
}

#[test]
fn broken_blocks_are_refused() {
    use HpackError::{Huffman, Index, Integer, TableSize, Truncated};
    for (block, error) in [
        ("80", Index),                  // index 0
        ("be", Index),                  // nothing is in the dynamic table
        ("ff 00", Index),               // index 127
        ("7f 00 00", Index),            // a literal with a name of an unknown index
        ("ff 80 80 80 80 00", Integer), // zeros without end
        ("ff ff ff ff ff 0f", Integer),
        ("ff", Truncated),
        ("41", Truncated),
        ("41 0a 61", Truncated),
        ("00 01", Truncated),
        ("3f e2 1f", TableSize),              // 4097
        ("82 20", TableSize),                 // after a field
        ("00 01 61 82 f8 ff", Huffman),       // eight bits of padding
        ("00 01 61 81 00", Huffman),          // padding of zeros
        ("00 01 61 84 ff ff ff ff", Huffman), // the end of string itself
    ] {
        assert_eq!(decode(&mut Decoder::new(), &bytes(block)), Err(error), "{block}");
    }
    let sizes = decode(&mut Decoder::new(), &bytes("20 3f e1 1f 82")).unwrap();
    assert_eq!(sizes, [(":method".to_owned(), "GET".to_owned())], "two sizes, the last is 4096");
}

#[test]
fn every_byte_survives_the_huffman_code() {
    let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    for length in 0..all.len() {
        let (mut encoded, mut decoded) = (Vec::new(), Vec::new());
        huffman::encode(&all[..length], &mut encoded);
        assert_eq!(encoded.len(), huffman::encoded_len(&all[..length]));
        assert_eq!(huffman::decode(&encoded, &mut decoded), Some(()));
        assert_eq!(decoded, &all[..length]);
    }
}

#[test]
fn what_the_encoder_remembers_costs_a_byte_and_what_is_secret_is_not_remembered() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let fields = [
        (":status", "200"),
        ("content-type", "text/html; charset=utf-8"),
        ("server", "pilus"),
        ("x-something", "always the same"),
        ("content-length", "12345"),
        ("authorization", "Basic c2VjcmV0OnNlY3JldA=="),
        ("cookie", "short=1"),
        ("set-cookie", "session=0123456789abcdef0123456789abcdef"),
    ];
    let mut sizes = Vec::new();
    for round in 0..3 {
        let mut block = Vec::new();
        encoder.begin(&mut block);
        for (name, value) in fields {
            let before = block.len();
            encoder.field(name.as_bytes(), value.as_bytes(), &mut block);
            if round == 1 {
                sizes.push(block.len() - before);
            }
            let secret = ["authorization", "cookie", "set-cookie"].contains(&name);
            assert_eq!(block[before] & 0xf0 == 0x10, secret, "{name} in round {round}");
        }
        let expected: Fields = fields.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
        assert_eq!(decode(&mut decoder, &block), Ok(expected), "round {round}");
    }
    assert_eq!(sizes[..4], [1, 1, 1, 1]);
    assert!(sizes[4..].iter().all(|size| *size > 4), "{sizes:?}");
}

#[test]
fn tables_agree_through_evictions_and_changes_of_size() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    for i in 0..2000usize {
        let mut block = Vec::new();
        match i {
            500 => encoder.set_limit(100),
            1000 => {
                encoder.set_limit(0);
                encoder.set_limit(1 << 20);
            }
            1500 => encoder.set_limit(ENCODER_TABLE_BYTES / 2),
            _ => {}
        }
        encoder.begin(&mut block);
        let name = format!("x-name-{}", i % 7);
        let value = "v".repeat(i * 31 % 300);
        encoder.field(name.as_bytes(), value.as_bytes(), &mut block);
        encoder.field(b"x-same", b"same", &mut block);
        let expected = vec![(name, value), ("x-same".to_owned(), "same".to_owned())];
        assert_eq!(decode(&mut decoder, &block), Ok(expected), "round {i}");
    }
}
