//! `onset es-template`: what Elasticsearch or OpenSearch must hold before documents come, printed for
//! a console or installed. Rendered from the tracers' specs.

mod plan;
mod server;

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::arguments::JSON;
use super::{Command, Exit, Failure, Opt, ParsedArgs};
use crate::config;
use crate::ship::Settings;
use crate::tracer::{REGISTRY, mapping};
use plan::{Flavor, Plan};
#[cfg(any(test, feature = "fuzz"))]
pub(super) use server::fuzz;
use server::{Existing, Server};

const FLAVOR: Opt = Opt {
    long: "flavor",
    short: None,
    value: Some("FLAVOR"),
    about: "elasticsearch or opensearch; default: what the server is with --apply, else elasticsearch",
};
const RETENTION: Opt = Opt {
    long: "retention",
    short: None,
    value: Some("TIME"),
    about: "How long documents are kept, e.g. 30d, the default; none: until someone deletes them",
};
const PLAIN: Opt = Opt {
    long: "plain",
    short: None,
    value: None,
    about: "A plain index, that nothing cleans up, and no data stream",
};
const APPLY: Opt = Opt {
    long: "apply",
    short: None,
    value: None,
    about: "Installs it on the config's server; can be done again, e.g. for a newer onset",
};

const RETENTION_DEFAULT: Duration = Duration::from_secs(30 * 86_400);
/// Servers look at their policies every ten minutes or so.
const RETENTION_MIN: Duration = Duration::from_secs(3600);
/// Servers count nanoseconds in 63 bits: 292 years.
const RETENTION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

pub(super) const COMMAND: Command = Command {
    name: "es-template",
    about: "Prints or installs what Elasticsearch or OpenSearch must hold before documents come",
    operands: &[],
    options: &[FLAVOR, RETENTION, PLAIN, APPLY, JSON],
    run,
};

fn run(args: &ParsedArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let config = args.config()?;
    let settings = Settings::new(&config.elasticsearch);
    let flavor = args.read(FLAVOR.long, Flavor::named)?;
    let (apply, plain) = (args.flag(APPLY.long), args.flag(PLAIN.long));
    if apply && args.flag(JSON.long) {
        return Err(Failure::Usage("--json prints; with --apply there is nothing to print".to_owned()));
    }
    let plan = Plan {
        flavor: flavor.unwrap_or(Flavor::Elasticsearch),
        name: settings.index().to_owned(),
        plain,
        retention: retention(args, plain)?,
        mapping: mapping(REGISTRY.kinds()).map_err(|conflict| Failure::Failed(conflict.to_string()))?,
    };
    match (apply, args.flag(JSON.long)) {
        (true, _) => install(plan, flavor.is_some(), &settings, out),
        (false, true) => print_json(&plan, out),
        (false, false) => print(&plan, out),
    }
}

fn retention(args: &ParsedArgs, plain: bool) -> Result<Option<Duration>, Failure> {
    let read = |text| match text {
        "none" => Some(None),
        _ => config::time(text).filter(|time| (RETENTION_MIN..=RETENTION_MAX).contains(time)).map(Some),
    };
    let asked = args.read(RETENTION.long, read)?;
    match asked {
        Some(Some(_)) if plain => {
            Err(Failure::Usage("--retention: nothing cleans up a plain index; leave out --plain".to_owned()))
        }
        Some(retention) => Ok(retention),
        None => Ok((!plain).then_some(RETENTION_DEFAULT)),
    }
}

fn print(plan: &Plan, out: &mut dyn Write) -> Result<Exit, Failure> {
    writeln!(
        out,
        "# For {}; --flavor says for whom else. Paste it into the Dev Tools of Kibana or OpenSearch\n\
         # Dashboards, or let `onset es-template --apply` do it. {}: {}.",
        plan.flavor,
        plan.name,
        plan.policy_words()
    )?;
    for call in plan.calls() {
        writeln!(out, "\n{call}")?;
    }
    Ok(Exit::Success)
}

fn print_json(plan: &Plan, out: &mut dyn Write) -> Result<Exit, Failure> {
    let calls = plan.calls().into_iter();
    let calls: Vec<Value> =
        calls.map(|call| json!({ "method": call.method, "path": call.path, "body": call.body })).collect();
    writeln!(out, "{:#}", Value::from(calls))?;
    Ok(Exit::Success)
}

fn install(mut plan: Plan, told: bool, settings: &Settings, out: &mut dyn Write) -> Result<Exit, Failure> {
    if !settings.is_on() {
        let words = "elasticsearch.url: must be set for es-template --apply; it names the server";
        return Err(Failure::Config(config::Error::Keys(vec![words.to_owned()])));
    }
    let server = Server::new(settings)?;
    if !told {
        let (flavor, version) = server.flavor()?;
        plan.flavor = flavor;
        writeln!(out, "{flavor} {version} at {}", server.url())?;
    }
    // Before anything is changed: what would not go together.
    let there = server.there(&plan)?;
    match (&there, plan.plain) {
        (Existing::Index, false) => Err(Failure::Failed(format!(
            "{} is an index or an alias there, and no data stream: say --plain, or another elasticsearch.index",
            plan.name
        ))),
        (Existing::Stream(_), true) => {
            Err(Failure::Failed(format!("{} is a data stream there: leave out --plain", plan.name)))
        }
        (_, true) => install_index(&plan, &server, &there, out),
        (_, false) => install_stream(&plan, &server, &there, out),
    }
}

fn install_index(
    plan: &Plan,
    server: &Server,
    there: &Existing,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let new = matches!(there, Existing::Nothing);
    server.must(&if new { plan.index() } else { plan.remap() })?;
    let what = if new { "created" } else { "was there, and has the mapping now" };
    writeln!(out, "index {}: {what}; {}", plan.name, plan.policy_words())?;
    Ok(Exit::Success)
}

fn install_stream(
    plan: &Plan,
    server: &Server,
    there: &Existing,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let name = &plan.name;
    let lacking = install_policy(plan, server)?;
    let governed = lacking.is_none();
    if governed {
        writeln!(out, "policy {name}: {}", plan.policy_words())?;
    }
    server.must(&plan.template(governed))?;
    writeln!(out, "template {name}: installed")?;
    if let Existing::Stream(backing) = there {
        server.must(&plan.remap())?;
        for call in plan.govern(backing).iter().filter(|_| governed) {
            server.must(call)?;
        }
        writeln!(out, "data stream {name}: was there, and has the mapping now")?;
    } else {
        server.must(&plan.stream())?;
        writeln!(out, "data stream {name}: created")?;
    }
    let Some(lacking) = lacking else { return Ok(Exit::Success) };
    writeln!(
        out,
        "policy {name}: NOT installed, for this server knows none ({lacking}): documents are kept until \
         someone deletes them. Documents can come all the same; --retention none says that this is wanted"
    )?;
    Ok(Exit::Failure)
}

/// What of the server is missing, if it cannot hold policies.
fn install_policy(plan: &Plan, server: &Server) -> Result<Option<&'static str>, Failure> {
    let Some(mut policy) = plan.policy() else { return Ok(None) };
    let lacking = match plan.flavor {
        Flavor::Elasticsearch => "index lifecycle management, which is not in every Elasticsearch",
        Flavor::OpenSearch => "the plugin opensearch-index-management",
    };
    if plan.flavor == Flavor::OpenSearch {
        // A policy that is there is only replaced by who has seen it.
        let seen = plan::get(plan.policy_path());
        let answer = server.ask(&seen)?;
        if answer.is_unknown() {
            return Ok(Some(lacking));
        }
        if let Some((number, term)) = answer.version() {
            policy.path = format!("{}?if_seq_no={number}&if_primary_term={term}", policy.path);
        }
    }
    let answer = server.ask(&policy)?;
    match answer.is_unknown() {
        true => Ok(Some(lacking)),
        false if answer.is_well() => Ok(None),
        false => Err(server.refused(&policy, &answer)),
    }
}
