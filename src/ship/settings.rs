//! `[elasticsearch]` of the config as shipping wants it, and the secrets that it names: read from
//! files when they are needed, and shown nowhere.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::shipper::BatchSettings;
use crate::knob::Values;
use crate::net::client::{self, Client, Timeouts, TlsTrust};

/// A connection that does not come about in this time is none.
const CONNECT: Duration = Duration::from_secs(10);
/// A longer secret is none.
const SECRET_MAX: usize = 16 << 10;

/// A server, and how it is spoken to.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    url: String,
    index: String,
    username: String,
    password_file: Option<PathBuf>,
    api_key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    timeout: Duration,
    compress: bool,
    pub(super) batch_settings: BatchSettings,
}

/// Why a server cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A secret's file.
    #[error("[elasticsearch] {key}: cannot read {}: {source}", path.display())]
    Secret {
        /// The config's key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// There is nothing that a header could hold.
    #[error("[elasticsearch] {key}: {} must hold one line of text, and no more", path.display())]
    NoSecret {
        /// The config's key.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// TLS.
    #[error("[elasticsearch] ca_file: {0}")]
    Client(#[from] client::Error),
}

impl Settings {
    /// From the config's table.
    #[must_use]
    pub fn new(values: &Values) -> Settings {
        let file = |key| Some(PathBuf::from(values.text(key))).filter(|path| !path.as_os_str().is_empty());
        Settings {
            url: values.text("url").trim_end_matches('/').to_owned(),
            index: values.text("index").to_owned(),
            username: values.text("username").to_owned(),
            password_file: file("password_file"),
            api_key_file: file("api_key_file"),
            ca_file: file("ca_file"),
            timeout: values.time("timeout"),
            compress: values.flag("compress"),
            batch_settings: BatchSettings {
                flush: values.time("flush"),
                batch: usize::try_from(values.size("batch")).unwrap_or(usize::MAX),
                retry: values.time("retry"),
                catch_up: values.size("catch_up"),
            },
        }
    }

    /// Whether there is a server at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.url.is_empty()
    }

    /// The server's address, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The index or data stream.
    #[must_use]
    pub fn index(&self) -> &str {
        &self.index
    }

    /// Whether requests are gzipped.
    pub(super) fn compress(&self) -> bool {
        self.compress
    }

    /// A client for this server. Reads the CA's file.
    pub fn client(&self) -> Result<Client, Error> {
        let trust = TlsTrust { ca_file: self.ca_file.as_deref(), identity: None };
        let patience = Timeouts { connect: CONNECT.min(self.timeout), total: self.timeout };
        Ok(Client::new(&self.url, trust, patience)?)
    }

    /// What `Authorization` says, if the config names anyone. Reads the secret's file.
    pub fn authorization(&self) -> Result<Option<Authorization>, Error> {
        if let Some(path) = &self.api_key_file {
            let key = secret("api_key_file", path)?;
            // As Elasticsearch gives it out: encoded already; `id:key` is what it was before.
            let key = if key.contains(':') { STANDARD.encode(key) } else { key };
            return Ok(Some(Authorization(format!("ApiKey {key}"))));
        }
        if let (false, Some(path)) = (self.username.is_empty(), &self.password_file) {
            let password = secret("password_file", path)?;
            let basic = STANDARD.encode(format!("{}:{password}", self.username));
            return Ok(Some(Authorization(format!("Basic {basic}"))));
        }
        Ok(None)
    }
}

/// A header's value that is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorization(String);

impl Authorization {
    /// To be sent, and for nothing else.
    #[must_use]
    pub fn header(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(..)")
    }
}

fn secret(key: &'static str, path: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Secret { key, path: path.to_owned(), source })?;
    Ok(one_line(&bytes).ok_or(Error::NoSecret { key, path: path.to_owned() })?.to_owned())
}

/// A secret's file, if it is one that a header can hold.
pub(super) fn one_line(bytes: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(bytes).ok().map(str::trim_end);
    line.filter(|line| !line.is_empty() && line.len() <= SECRET_MAX && !line.chars().any(char::is_control))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn settings(text: &str) -> Settings {
        let config = Config::parse(text, crate::tracer::TRACERS).unwrap();
        Settings::new(&config.elasticsearch)
    }

    #[test]
    fn secrets_are_read_from_files_and_never_printed() {
        let dir = std::env::temp_dir().join(format!("onset-secrets-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).unwrap();
            dir.join(name).display().to_string()
        };
        let basic = settings(&format!(
            "[elasticsearch]\nurl = \"http://es:9200/\"\nusername = \"onset\"\npassword_file = \"{}\"",
            file("password", "pa:ss wörd\n")
        ));
        let header = basic.authorization().unwrap().unwrap();
        assert_eq!(header.header(), "Basic b25zZXQ6cGE6c3Mgd8O2cmQ=");
        assert_eq!(basic.url(), "http://es:9200");
        assert!(!format!("{basic:?} {header:?}").contains("b25z"));
        for (text, want) in [("aWQ6a2V5\n", "ApiKey aWQ6a2V5"), ("id:key", "ApiKey aWQ6a2V5")] {
            let key = settings(&format!(
                "[elasticsearch]\nurl = \"http://es:9200\"\napi_key_file = \"{}\"",
                file("key", text)
            ));
            assert_eq!(key.authorization().unwrap().unwrap().header(), want);
        }
        for wrong in ["", "\n", "two\nlines\n", "a\u{0}b"] {
            let key = settings(&format!(
                "[elasticsearch]\nurl = \"http://es:9200\"\napi_key_file = \"{}\"",
                file("key", wrong)
            ));
            let words = key.authorization().unwrap_err().to_string();
            assert!(words.contains("api_key_file") && words.contains("one line"), "{words}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
        let words = basic.authorization().unwrap_err().to_string();
        assert!(words.contains("password_file") && words.contains("No such file"), "{words}");
    }
}
