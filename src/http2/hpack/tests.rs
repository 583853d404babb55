//! HPACK against the examples of its specification, and on what is not HPACK.

use super::*;

type Fields = Vec<(String, String)>;

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, Invalid> {
    let mut fields = Fields::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    decoder.decode(block, |name, value| fields.push((text(name), text(value))))?;
    Ok(fields)
}

#[expect(clippy::unnecessary_wraps, reason = "compared with a result")]
fn fields(pairs: &[(&str, &str)]) -> Result<Fields, Invalid> {
    Ok(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

const FIRST: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];

/// RFC 7541, appendices C.3 and C.4: three requests, plain and compressed.
#[test]
fn requests_of_the_specification_are_read() {
    let plain: [&[u8]; 3] = [
        b"\x82\x86\x84\x41\x0fwww.example.com",
        b"\x82\x86\x84\xbe\x58\x08no-cache",
        b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
    ];
    let compressed: [&[u8]; 3] = [
        b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
        b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
        b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\
          \xb4\xbf",
    ];
    for [first, second, third] in [plain, compressed] {
        let mut decoder = Decoder::default();
        assert_eq!(decode(&mut decoder, first), fields(&FIRST));
        let mut expected = FIRST.to_vec();
        expected.push(("cache-control", "no-cache"));
        assert_eq!(decode(&mut decoder, second), fields(&expected));
        let expected = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        assert_eq!(decode(&mut decoder, third), fields(&expected));
    }
}

#[test]
fn version_tells_of_every_change_of_the_table() {
    let mut decoder = Decoder::default();
    decode(&mut decoder, b"\x82\x00\x01a\x01b\x10\x01a\x01b").unwrap();
    assert_eq!(decoder.version(), 0);
    decode(&mut decoder, b"\x40\x01a\x01b").unwrap();
    assert_eq!(decoder.version(), 1);
    decode(&mut decoder, b"\x20\x82").unwrap();
    assert_eq!(decoder.version(), 2);
    assert_eq!(decode(&mut decoder, b"\xbe"), Err(Invalid), "a size of 0 empties the table");
}

#[test]
fn name_of_the_entry_that_makes_room_is_kept() {
    let mut decoder = Decoder::default();
    // Size 70: room for one entry of a name of 30 bytes and a value of 8.
    let mut block = b"\x3f\x27\x40\x1e".to_vec();
    block.extend([b'n'; 30]);
    block.extend(b"\x0812345678");
    decode(&mut decoder, &block).unwrap();
    decode(&mut decoder, b"\x7e\x0887654321").unwrap();
    let name = "n".repeat(30);
    assert_eq!(decode(&mut decoder, b"\xbe"), fields(&[(&name, "87654321")]));
}

#[test]
fn what_is_not_hpack_is_refused() {
    let cases: [(&[u8], &str); 13] = [
        (b"\x80", "index 0"),
        (b"\xbe", "no such entry"),
        (b"\x7e\x01a", "no such name"),
        (b"\xff", "half an integer"),
        (b"\xff\x80\x80\x80\x80\x00", "an integer of six bytes"),
        (b"\x40", "no name"),
        (b"\x00\x01a", "no value"),
        (b"\x00\x01a\x02b", "half a value"),
        (b"\x00\x01a\x81\xff", "padding of eight bits"),
        (b"\x82\x20", "a size after a field"),
        (b"\x3f\xe2\x1f", "a size above 4096"),
        (b"\x00\xff\xff\xff\xff\x7f", "a length beyond all memory"),
        (b"\x0f\xff\xff\xff\xff\xff\x01\x00", "a name index of six bytes"),
    ];
    for (block, what) in cases {
        assert_eq!(decode(&mut Decoder::default(), block), Err(Invalid), "{what}");
    }
    assert_eq!(decode(&mut Decoder::default(), b"\x3f\xe1\x1f"), Ok(Fields::new()), "4096");
}

#[test]
fn what_is_written_is_read_back() {
    let long = "x".repeat(20_000);
    for value in ["", "v", &long[..126], &long[..127], &long[..128], &long[..254], &long] {
        let mut block = Vec::new();
        write_status(&mut block, 200);
        write_status(&mut block, 431);
        write_field(&mut block, b"name", value.as_bytes());
        let expected = [(":status", "200"), (":status", "431"), ("name", value)];
        let mut decoder = Decoder::default();
        assert_eq!(decode(&mut decoder, &block), fields(&expected));
        assert_eq!(decoder.version(), 0);
    }
}
