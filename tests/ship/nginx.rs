//! nginx as a real HTTPS proxy before a server, and what it is known by: a private CA and certificates
//! of its making. It dies with this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::http::free_port;
use crate::opensearch::start_lasting;
use crate::rig::{KillOnDrop, await_that, command, done};

const STARTS: Duration = Duration::from_secs(30);

/// A certificate authority of the tests' own.
pub struct Authority {
    folder: PathBuf,
    name: String,
}

/// A certificate and its key, as files.
pub struct Certificate {
    pub file: PathBuf,
    pub key: PathBuf,
}

const KEY: [&str; 6] = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"];
const CURVE: [&str; 3] = ["ec_paramgen_curve:P-256", "-days", "2"];

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Authority {
        let authority = Authority { folder: folder.to_owned(), name: name.to_owned() };
        let Certificate { file, key } = authority.files("ca");
        done(
            command("openssl")
                .args(KEY)
                .args(CURVE)
                .args(["-subj", &format!("/CN={name}")])
                .args(["-addext", "keyUsage=critical,keyCertSign"])
                .arg("-keyout")
                .arg(key)
                .arg("-out")
                .arg(file),
        );
        authority
    }

    /// What a client is given to trust it.
    pub fn file(&self) -> PathBuf {
        self.files("ca").file
    }

    /// A certificate for this name, e.g. `IP:127.0.0.1` or `DNS:localhost`.
    pub fn certificate(&self, name: &str) -> Certificate {
        let Certificate { file: ca, key: ca_key } = self.files("ca");
        let (kind, plain) = name.split_once(':').unwrap();
        let Certificate { file, key } = self.files(plain);
        done(
            command("openssl")
                .args(KEY)
                .args(CURVE)
                .arg("-CA")
                .arg(ca)
                .arg("-CAkey")
                .arg(ca_key)
                .args(["-subj", &format!("/CN={plain}")])
                .args(["-addext", "basicConstraints=critical,CA:FALSE"])
                .args(["-addext", &format!("subjectAltName={kind}:{plain}")])
                .arg("-keyout")
                .arg(&key)
                .arg("-out")
                .arg(&file),
        );
        Certificate { file, key }
    }

    fn files(&self, of: &str) -> Certificate {
        let path = |end| self.folder.join(format!("{}-{of}.{end}", self.name));
        Certificate { file: path("pem"), key: path("key") }
    }
}

/// A running proxy.
pub struct Nginx {
    folder: PathBuf,
    port: u16,
    running: KillOnDrop,
}

impl Nginx {
    /// Starts one in a folder before `upstream`. `more` is lines of nginx's own for the server, e.g.
    /// `client_max_body_size 64k;`.
    pub fn start(folder: &Path, upstream: SocketAddr, certificate: &Certificate, more: &str) -> Nginx {
        let folder = folder.join(format!("nginx-{}", free_port()));
        std::fs::create_dir(&folder).unwrap();
        let port = free_port();
        let at = folder.display();
        let (file, key) = (certificate.file.display(), certificate.key.display());
        // A single process: a worker of a master that was killed would go on alone.
        let text = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
             events {{}}\n\
             http {{\n\
             client_max_body_size 0;\n\
             access_log {at}/access.log;\n\
             client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;\n\
             uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             server {{\n\
             listen 127.0.0.1:{port} ssl;\n\
             ssl_certificate {file}; ssl_certificate_key {key};\n\
             {more}\n\
             location / {{ proxy_pass http://{upstream}; proxy_http_version 1.1; }}\n\
             }}\n}}\n"
        );
        std::fs::write(folder.join("conf"), text).unwrap();
        let mut nginx = command("nginx");
        nginx.arg("-e").arg(folder.join("error.log")).arg("-p").arg(&folder).arg("-c");
        nginx.arg(folder.join("conf"));
        let running = start_lasting(nginx);
        let mut nginx = Nginx { folder, port, running };
        await_that("nginx to listen", STARTS, || {
            if let Some(code) = nginx.running.0.try_wait().unwrap() {
                panic!("nginx ended with {code}: {}", nginx.said());
            }
            std::net::TcpStream::connect(nginx.address()).ok()
        });
        nginx
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Its URL by address: what a certificate for `IP:127.0.0.1` is for.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// What it complained of.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join("error.log")).unwrap_or_default()
    }

    /// The requests that came through, one a line.
    pub fn seen(&self) -> String {
        std::fs::read_to_string(self.folder.join("access.log")).unwrap_or_default()
    }
}

/// Lines for `more`: who may come in.
pub fn only_user(folder: &Path, name: &str, password: &str) -> String {
    let hash = done(command("openssl").args(["passwd", "-apr1", password]));
    let file = folder.join("htpasswd");
    std::fs::write(&file, format!("{name}:{hash}")).unwrap();
    format!("auth_basic onset; auth_basic_user_file {};", file.display())
}
