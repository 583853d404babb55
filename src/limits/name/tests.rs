use super::*;

fn entries(pairs: &[(&str, &str)]) -> Entries {
    pairs.iter().copied().collect()
}

#[test]
fn entries_are_read_back_whatever_their_length() {
    for length in [0, 1, 127, 128, 129, 16_383, 16_384, 70_000] {
        let (key, value) = ("k".repeat(length), "é".repeat(length));
        let packed = entries(&[(&key, &value), ("", ""), ("a\0", "b")]);
        let texts: Vec<_> = packed.texts().map(|(key, value)| (key, value.text())).collect();
        assert_eq!(texts, [(&*key, &*value), ("", ""), ("a\0", "b")]);
    }
    assert_eq!(Entries::default().iter().next(), None);
}

#[test]
fn entries_are_ordered_as_their_pairs_and_written_as_lists() {
    let long = "b".repeat(200);
    let mut pairs: Vec<Vec<(&str, &str)>> = vec![
        vec![],
        vec![("a", "")],
        vec![("a", "z")],
        vec![("a", "z"), ("a", "a")],
        vec![("b", &long)],
        vec![("bb", "a")],
    ];
    pairs.reverse();
    let mut packed: Vec<_> = pairs.iter().map(|pairs| entries(pairs)).collect();
    pairs.sort();
    packed.sort();
    assert_eq!(packed, pairs.iter().map(|pairs| entries(pairs)).collect::<Vec<_>>());
    let text = serde_json::to_string(&entries(&[("k", "v\"")])).unwrap();
    assert_eq!(text, r#"[["k","v\""]]"#);
    assert_eq!(serde_json::from_str::<Entries>(&text).unwrap(), entries(&[("k", "v\"")]));
}

fn hashed(domain: &str, hash: &str) -> ClientName {
    let value = Value { bytes: hash.as_bytes(), hashed: true };
    ClientName { domain: domain.into(), entries: Entries::of([(&b"key"[..], value)]) }
}

#[test]
fn hash_is_no_value_that_looks_like_it() {
    let (hash, value) = (hashed("d", "ab"), name("d", "ab"));
    assert_ne!(hash, value);
    assert_ne!(hash.record_key(), value.record_key());
    assert!(hash.entries.has_hashes() && !value.entries.has_hashes());
    let text = serde_json::to_string(&hash.entries).unwrap();
    assert_eq!(text, r#"[["key",{"hash":"ab"}]]"#);
    assert_eq!(serde_json::from_str::<Entries>(&text).unwrap(), hash.entries);
    for bad in [r#"[["key",{"hush":"ab"}]]"#, r#"[["key",{}]]"#, r#"[["key",1]]"#] {
        assert!(serde_json::from_str::<Entries>(bad).is_err(), "{bad}");
    }
}

fn name(domain: &str, value: &str) -> ClientName {
    ClientName { domain: domain.into(), entries: entries(&[("key", value)]) }
}

#[test]
fn record_keys_are_ordered_as_names_and_read_back() {
    let mut names = vec![
        name("d", "a"),
        name("d", "a\0b"),
        name("d", "a\0"),
        name("d", ""),
        hashed("d", ""),
        hashed("d", "a"),
        hashed("d", "a\0"),
        hashed("d", "b"),
        name("d\0", "a"),
        name("da", "a"),
        ClientName { domain: "d".into(), entries: entries(&[("key", "a"), ("b", "c")]) },
    ];
    for name in &names {
        assert_eq!(ClientName::from_record_key(&name.record_key()).as_ref(), Some(name));
    }
    let mut keys: Vec<_> = names.iter().map(ClientName::record_key).collect();
    keys.sort();
    names.sort();
    assert_eq!(keys, names.iter().map(ClientName::record_key).collect::<Vec<_>>());
}
