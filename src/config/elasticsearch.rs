//! What must hold between the keys of `[elasticsearch]`.

use super::Values;

/// Adds what is wrong with them.
pub(super) fn check(values: &Values, errors: &mut Vec<String>) {
    let url = values.text("url");
    if let Some(wrong) = wrong_url(url) {
        errors.push(format!("elasticsearch.url: {wrong}"));
    }
    if let Some(wrong) = wrong_index(values.text("index")) {
        errors.push(format!("elasticsearch.index: {wrong}"));
    }
    let set = |key| !values.text(key).is_empty();
    if set("username") && !set("password_file") {
        errors.push("elasticsearch.password_file: must be set where username is".to_owned());
    }
    if set("password_file") && !set("username") {
        errors.push("elasticsearch.username: must be set where password_file is".to_owned());
    }
    if set("username") && set("api_key_file") {
        errors.push("elasticsearch.api_key_file: must not be set where username is; choose one".to_owned());
    }
}

fn wrong_url(url: &str) -> Option<String> {
    if url.is_empty() {
        return None;
    }
    let Some(rest) = url.strip_prefix("http://").or(url.strip_prefix("https://")) else {
        return Some(format!("must begin with http:// or https://, not \"{url}\""));
    };
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        return Some("must not hold a password; use username and password_file".to_owned());
    }
    let strange = |c: char| c.is_whitespace() || c.is_control() || !c.is_ascii() || "?#\"<>".contains(c);
    if host.is_empty() || host.starts_with(':') || rest.contains(strange) {
        return Some(format!("must be like \"https://es.example:9200\", not \"{url}\""));
    }
    None
}

/// As Elasticsearch has it ("Create index API", index names).
fn wrong_index(index: &str) -> Option<String> {
    let strange =
        |c: char| c.is_uppercase() || c.is_whitespace() || c.is_control() || "\\/*?\"<>|,#:%".contains(c);
    let bad = index.is_empty()
        || index.len() > 255
        || index.starts_with(['-', '_', '+', '.'])
        || index.contains(strange);
    bad.then(|| {
        format!("must be a name in lower case without /, *, ?, \", <, >, |, comma or #, not \"{index}\"")
    })
}
