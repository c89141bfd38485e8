//! The output to Elasticsearch or OpenSearch. Its cursor moves only past what the server has, or will never take.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

mod answer;
mod batch;
#[doc(hidden)]
pub mod bench;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod pace;
mod rejects;
mod settings;
mod shipper;
mod transport;
mod verdict;

pub use rejects::{Reject, rejected};
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
        let terms = settings.terms;
        let transport = HttpTransport::new(link.clone(), settings);
        Shipper::new(transport, position, terms, seed).run();
    }
}
