//! How deep JSON is nested. Values that are nested too deeply are refused, wherever they come from.

/// The deepest nesting of lists and objects in a value. Most JSON parsers go this far.
pub const MAX_DEPTH: usize = 128;

/// The depth of nesting in valid JSON.
pub fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_counts_outside_strings_only() {
        for (json, levels) in [
            ("1", 0),
            ("[]", 1),
            (r#"{"a":[{}]}"#, 3),
            (r#"["[[[", "\"[[", "\\", []]"#, 2),
            ("[[],[],[]]", 2),
        ] {
            assert_eq!(depth(json), levels, "{json}");
        }
    }
}
