//! The output to Elasticsearch or OpenSearch. Its cursor moves only past what the server has, or will never take.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

mod backoff;
mod batch;
#[doc(hidden)]
pub mod bench;
mod bulk_outcome;
mod bulk_reply;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod rejections;
mod settings;
mod shipper;
mod transport;

pub use rejections::{Rejection, rejected};
pub use settings::{Authorization, Error, Settings};

use crate::config::Config;
use crate::output::{Link, OutputSpec, OutputThread, Position, Sink};
use shipper::Shipper;
use transport::HttpTransport;

/// The output.
pub const OUTPUT: OutputSpec =
    OutputSpec { name: "elasticsearch", start: OutputThread::<Elasticsearch>::start };

/// Elasticsearch or OpenSearch, over HTTP.
#[derive(Debug)]
enum Elasticsearch {}

impl Sink for Elasticsearch {
    type Settings = Settings;

    fn settings(config: &Config) -> Option<Settings> {
        Some(Settings::new(&config.elasticsearch)).filter(Settings::is_on)
    }

    fn target(settings: &Settings) -> String {
        settings.url().to_owned()
    }

    fn run(settings: Settings, link: &Arc<Link<Settings>>, position: Position) {
        let seed = std::hash::RandomState::new().build_hasher().finish();
        let batch_settings = settings.batch_settings;
        let transport = HttpTransport::new(link.clone(), settings);
        Shipper::new(transport, position, batch_settings, seed).run();
    }
}
