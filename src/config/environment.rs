//! `${NAME}` in a text is the environment's variable of that name: one file serves all nodes of a
//! cluster, and each tells its pods who it is.

/// A text with its variables put in. The error names what is wrong.
pub(super) fn expanded(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) =
            after.split_once('}').ok_or_else(|| format!("has a ${{ without a }}: \"{text}\""))?;
        let value = lookup(name).filter(|value| !value.is_empty());
        out.push_str(before);
        out.push_str(&value.ok_or_else(|| format!("the environment has no variable {name}"))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_variables_are_expanded_and_missing_ones_named() {
        let lookup = |name: &str| match name {
            "NODE_IP" => Some("192.0.2.7".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let read = |text: &str| expanded(text, lookup);
        assert_eq!(read("https://${NODE_IP}:10250"), Ok("https://192.0.2.7:10250".into()));
        assert_eq!(read("${NODE_IP}${NODE_IP}").as_deref(), Ok("192.0.2.7192.0.2.7"));
        assert_eq!(read("$NODE_IP costs $5").as_deref(), Ok("$NODE_IP costs $5"));
        assert_eq!(read(""), Ok(String::new()));
        for (text, word) in [("${NONE}", "NONE"), ("a${EMPTY}", "EMPTY"), ("${NODE_IP", "without a }")] {
            assert!(read(text).is_err_and(|error| error.contains(word)), "{text}");
        }
    }
}
