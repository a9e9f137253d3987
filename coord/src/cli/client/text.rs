//! A line of text as words, with quotes: what `quorate txn` reads.

/// Splits a line into words. `"…"` knows `\"`, `\\`, `\n`, `\t` and `\xNN`; `'…'` takes everything as it stands.
///
/// # Errors
/// If a quote is not closed or an escape is not known.
pub(crate) fn words(line: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '"' => quoted(&mut chars, word.get_or_insert_default())?,
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err("a ' is not closed".to_owned()),
                        Some('\'') => break,
                        Some(c) => push(word, c),
                    }
                }
            }
            c => push(word.get_or_insert_default(), c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// What stands between `"` and `"`, the first being taken already.
fn quoted(chars: &mut std::str::Chars<'_>, word: &mut Vec<u8>) -> Result<(), String> {
    loop {
        match chars.next() {
            None => return Err("a \" is not closed".to_owned()),
            Some('"') => return Ok(()),
            Some('\\') => match chars.next() {
                Some('n') => word.push(b'\n'),
                Some('t') => word.push(b'\t'),
                Some(c @ ('"' | '\\')) => push(word, c),
                Some('x') => {
                    let mut digit =
                        || chars.next().and_then(|c| c.to_digit(16)).and_then(|d| u8::try_from(d).ok());
                    let (Some(high), Some(low)) = (digit(), digit()) else {
                        return Err("after \\x come two hexadecimal digits".to_owned());
                    };
                    word.push(high << 4 | low);
                }
                Some(c) => return Err(format!("\\{c} is not known; there are \\\" \\\\ \\n \\t \\xNN")),
                None => return Err("a \" is not closed".to_owned()),
            },
            Some(c) => push(word, c),
        }
    }
}

fn push(word: &mut Vec<u8>, c: char) {
    word.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_quotes() {
        let of = |line| {
            words(line).map(|w| w.into_iter().map(|w| String::from_utf8(w).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(of("put a  b").unwrap(), ["put", "a", "b"]);
        assert_eq!(of(r#"put "a b" 'c "d"'"#).unwrap(), ["put", "a b", "c \"d\""]);
        assert_eq!(of(r#"a"b\n\t\"\\\x41"c "" "#).unwrap(), ["ab\n\t\"\\Ac", ""]);
        assert_eq!(of("").unwrap(), [""; 0]);
        assert_eq!(words(r#""\xff""#).unwrap(), [[0xFF]]);
        for bad in ["\"a", "'a", r#""\q""#, r#""\x4""#, "\"\\"] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }
}
