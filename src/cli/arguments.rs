//! Arguments by table: what a command declares is what it is args, and what its help says.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::{Arg, Parser};

use super::{Exit, Failure};
use crate::config::Config;
use crate::tracer::REGISTRY;

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// What it does: a sentence.
    pub about: &'static str,
    /// Its operands, all of them needed.
    pub operands: &'static [&'static str],
    /// Its options; each command also has `--config` and `--help`.
    pub options: &'static [Opt],
    /// Does it.
    pub run: fn(&ParsedArgs, &mut dyn Write) -> Result<Exit, Failure>,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// As `--long`.
    pub long: &'static str,
    /// As `-s`.
    pub short: Option<char>,
    /// What its value is; `None` for a flag.
    pub value: Option<&'static str>,
    /// What it does.
    pub about: &'static str,
}

/// Another folder than the config's.
pub(super) const DIR: Opt = Opt {
    long: "dir",
    short: None,
    value: Some("DIR"),
    about: "The log's folder; default: the config's log.dir",
};

/// For programs instead of people.
pub(super) const JSON: Opt =
    Opt { long: "json", short: None, value: None, about: "JSON instead of text for people" };

const CONFIG: Opt = Opt {
    long: "config",
    short: None,
    value: Some("FILE"),
    about: "Another config than /etc/onset/onset.toml",
};

const HELP: Opt = Opt { long: "help", short: Some('h'), value: None, about: "This text" };

/// What a command was args.
#[derive(Debug, Default)]
pub struct ParsedArgs {
    options: Vec<(&'static str, OsString)>,
    operands: Vec<OsString>,
}

impl ParsedArgs {
    /// Whether a flag is there.
    #[must_use]
    pub fn flag(&self, long: &str) -> bool {
        self.value(long).is_some()
    }

    /// An option's path.
    #[must_use]
    pub fn path(&self, long: &str) -> Option<PathBuf> {
        self.value(long).map(PathBuf::from)
    }

    /// An option's text.
    pub fn text(&self, long: &str) -> Result<Option<&str>, Failure> {
        self.read(long, Some)
    }

    /// An option's number.
    pub fn number<N: FromStr>(&self, long: &str) -> Result<Option<N>, Failure> {
        self.read(long, |text| text.parse().ok())
    }

    /// An option's value, which `read` takes or does not.
    pub(super) fn read<'g, T>(
        &'g self,
        long: &str,
        read: impl FnOnce(&'g str) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(value) = self.value(long) else { return Ok(None) };
        let taken = value.to_str().and_then(read);
        taken.map(Some).ok_or_else(|| Failure::Usage(format!("--{long}: not {}", value.display())))
    }

    /// An operand, which is there if the command declares it.
    pub fn operand(&self, at: usize) -> Result<&str, Failure> {
        let operand = self.operands.get(at).map_or(OsStr::new(""), OsString::as_os_str);
        operand.to_str().ok_or_else(|| Failure::Usage(format!("{} is no UTF-8", operand.display())))
    }

    /// The config that is named, or the default one.
    pub fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(self.path(CONFIG.long).as_deref(), REGISTRY)?)
    }

    /// The log's folder: the one named, else the config's, which is then read.
    pub(super) fn dir(&self) -> Result<PathBuf, Failure> {
        match self.path(DIR.long) {
            Some(dir) => Ok(dir),
            None => Ok(self.config()?.log.dir),
        }
    }

    fn value(&self, long: &str) -> Option<&OsStr> {
        let found = self.options.iter().rev().find(|(name, _)| *name == long);
        found.map(|(_, value)| value.as_os_str())
    }
}

/// Finds the command and runs it.
pub(super) fn dispatch(
    commands: &[Command],
    args: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let mut parser = Parser::from_iter(args);
    let name = match parser.next()? {
        Some(Arg::Long("help") | Arg::Short('h')) => return overview(commands, out),
        Some(Arg::Long("version") | Arg::Short('V')) => {
            writeln!(out, "onset {}", env!("CARGO_PKG_VERSION"))?;
            return Ok(Exit::Success);
        }
        Some(Arg::Value(name)) => name,
        Some(other) => return Err(other.unexpected().into()),
        None => return Err(Failure::Usage("a command is missing; onset --help lists them".into())),
    };
    let Some(command) = commands.iter().find(|command| name == command.name) else {
        let words = format!("there is no command {}; onset --help lists them", name.display());
        return Err(Failure::Usage(words));
    };
    match parse(command, &mut parser)? {
        Some(args) => (command.run)(&args, out),
        None => help(command, out),
    }
}

/// `None`: it is asked for help.
fn parse(command: &Command, parser: &mut Parser) -> Result<Option<ParsedArgs>, Failure> {
    let mut args = ParsedArgs::default();
    while let Some(arg) = parser.next()? {
        let wanted = match arg {
            Arg::Value(value) if args.operands.len() < command.operands.len() => {
                args.operands.push(value);
                continue;
            }
            Arg::Long(long) => all(command).find(|option| option.long == long),
            Arg::Short(short) => all(command).find(|option| option.short == Some(short)),
            Arg::Value(_) => None,
        };
        let Some(option) = wanted else { return Err(arg.unexpected().into()) };
        if option.long == HELP.long {
            return Ok(None);
        }
        let value = if option.value.is_some() { parser.value()? } else { OsString::new() };
        args.options.push((option.long, value));
    }
    match command.operands.get(args.operands.len()) {
        None => Ok(Some(args)),
        Some(missing) => {
            Err(Failure::Usage(format!("{missing} is missing; see onset {} --help", command.name)))
        }
    }
}

fn all(command: &Command) -> impl Iterator<Item = Opt> {
    command.options.iter().copied().chain([CONFIG, HELP])
}

fn overview(commands: &[Command], out: &mut dyn Write) -> Result<Exit, Failure> {
    writeln!(out, "{}\n\nUsage: onset COMMAND\n", env!("CARGO_PKG_DESCRIPTION"))?;
    for command in commands {
        writeln!(out, "  {:<11} {}", command.name, command.about)?;
    }
    writeln!(out, "\nonset COMMAND --help tells more; onset --version tells which onset this is.")?;
    Ok(Exit::Success)
}

fn help(command: &Command, out: &mut dyn Write) -> Result<Exit, Failure> {
    write!(out, "{}\n\nUsage: onset {}", command.about, command.name)?;
    for operand in command.operands {
        write!(out, " {operand}")?;
    }
    writeln!(out, " [OPTIONS]\n")?;
    for option in all(command) {
        let short = option.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        let value = option.value.map_or(String::new(), |value| format!(" {value}"));
        writeln!(out, "  {:<28} {}", format!("{short}--{}{value}", option.long), option.about)?;
    }
    Ok(Exit::Success)
}
