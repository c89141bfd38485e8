//! The endpoint's pages: metrics, health, readiness, and an index of them.

use std::io::Write as _;

use crate::fixed_buf::FixedBuf;
use crate::http::Pages;

use super::metrics::View;
use super::slot::State;

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

const INDEX: &str = "<!doctype html><html lang=\"en\"><title>onset</title><h1>onset</h1><ul>\
<li><a href=\"/metrics\">/metrics</a>: live state for Prometheus</li>\
<li><a href=\"/healthz\">/healthz</a>: 200 while the loop turns</li>\
<li><a href=\"/readyz\">/readyz</a>: 200 once every tracer is active or reported unsupported</li>\
</ul></html>\n";

impl Pages for View<'_> {
    fn page(&mut self, path: &str, to: &mut FixedBuf) -> Option<(u16, &'static str)> {
        match path {
            "/metrics" => {
                self.scrape(to);
                Some((200, METRICS))
            }
            "/healthz" => text(to, "ok\n", 200),
            "/readyz" => Some(self.ready(to)),
            "/" => to.push(INDEX.as_bytes()).ok().map(|()| (200, HTML)),
            _ => None,
        }
    }
}

fn text(to: &mut FixedBuf, text: &str, status: u16) -> Option<(u16, &'static str)> {
    to.push(text.as_bytes()).ok().map(|()| (status, TEXT))
}

impl View<'_> {
    /// Each tracer's state on a line; 503 while one has failed, or waits for its hook.
    fn ready(&self, to: &mut FixedBuf) -> (u16, &'static str) {
        let mut status = 200;
        for slot in self.slots.named() {
            if matches!(slot.state, State::Failed(_) | State::Loading) {
                status = 503;
            }
            let (between, reason) = slot.state.reason().map_or(("", ""), |reason| (": ", reason));
            // A line that does not fit a page of megabytes tells nobody anything.
            let _ = writeln!(to, "{} {}{between}{reason}", slot.spec.name, slot.state.name());
        }
        (status, TEXT)
    }
}
