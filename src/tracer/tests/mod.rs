//! Stories of tracers: events in, requests out.

mod uniform;

