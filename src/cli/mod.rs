//! The command line: what people type, and what they read.
//!
//! The client commands ask the agent's admin server (`server::admin`) for JSON and print it; `check` and
//! `version` need no agent. Results go to standard output, errors to standard error; the exit codes are those
//! of [`Failure`].
mod args;
mod check;
mod client;
mod columns;
pub mod config_file;
mod get;
mod show;
mod table;

use std::io::Write;
use std::process::ExitCode;

use argh::FromArgs;

use crate::api::config::Config;
use crate::proto::value::{Value, to_json_pretty, to_yaml};
use crate::server::admin::VERSION;
use args::{
    Command, ConfigVerb, EndpointVerb, Explain, Format, IpVerb, Pilus, RouteVerb, ServiceVerb,
};
use client::{Agent, Path};
use table::Style;

/// Why a command has not done what was asked; says what to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// Exit code 1: the thing asked about is wrong. The text may be empty if all is said already.
    Wrong(String),
    /// Exit code 2: the command line is wrong.
    Usage(String),
    /// Exit code 3: the agent cannot be reached.
    Unreachable(String),
}

/// What a command has printed, and whether that is good.
struct Output {
    text: String,
    good: bool,
}

// === impl Failure ===

impl Failure {
    /// The exit code.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Wrong(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Wrong(text) | Self::Usage(text) | Self::Unreachable(text) => text,
        }
    }
}

// === impl Output ===

impl Output {
    const fn good(text: String) -> Self {
        Self { text, good: true }
    }
}

/// Does what the words (without the program's name) ask for. `run` starts the agent.
pub fn main(words: &[String], run: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    let command = match parse(words) {
        Ok(command) => command,
        Err(early) if early.status.is_ok() => {
            return print(&Output::good(early.output));
        }
        Err(early) => {
            eprintln!("{}", early.output.trim_end());
            eprintln!("`pilus --help` shows the commands, `pilus COMMAND --help` their flags");
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::Run(arguments) => match config_file::configure(&arguments) {
            Ok(config) => return run(config),
            Err(failure) => Err(failure),
        },
        command => execute(&command),
    };
    match result {
        Ok(output) => print(&output),
        Err(failure) => {
            if !failure.text().is_empty() {
                eprintln!("{}", failure.text());
            }
            ExitCode::from(failure.code())
        }
    }
}

fn parse(words: &[String]) -> Result<Command, argh::EarlyExit> {
    let words = match words {
        [only] if only == "--version" || only == "-V" => vec!["version".to_owned()],
        words => args::split_values(words),
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Pilus::from_args(&["pilus"], &words).map(|pilus| pilus.command)
}

fn print(output: &Output) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(output.text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        // The reader has seen enough: `pilus get pods | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("standard output: {error}");
            ExitCode::FAILURE
        }
        Ok(()) => ExitCode::from(u8::from(!output.good)),
    }
}

fn execute(command: &Command) -> Result<Output, Failure> {
    let (style, now) = (Style::of_stdout(), crate::io::clock::unix_seconds());
    let ask =
        |admin: &Option<String>, path: &str| Agent::new(admin.as_deref())?.want(&Path::new(path));
    match command {
        Command::Run(_) => Err(Failure::Usage("`run` has been taken care of".to_owned())),
        Command::Check(check) => check::check(check),
        Command::Get(get) => get::get(get, now),
        Command::Status(status) => {
            let json = ask(&status.admin, "/v1/status")?;
            Ok(shown(status.output, json, |json| show::status(json, style, now)))
        }
        Command::Service(service) => {
            let ServiceVerb::List(list) = &service.verb;
            let json = ask(&list.admin, "/v1/services")?;
            Ok(shown(list.output, json, show::services))
        }
        Command::Endpoint(endpoint) => {
            let EndpointVerb::List(list) = &endpoint.verb;
            let json = ask(&list.admin, "/v1/endpoints")?;
            Ok(shown(list.output, json, show::endpoints))
        }
        Command::Ip(ip) => {
            let IpVerb::List(list) = &ip.verb;
            let json = ask(&list.admin, "/v1/addresses")?;
            Ok(shown(list.output, json, show::addresses))
        }
        Command::Route(route) => {
            let RouteVerb::List(list) = &route.verb;
            let json = ask(&list.admin, "/v1/routes")?;
            Ok(shown(list.output, json, show::routes))
        }
        Command::Config(config) => {
            let ConfigVerb::View(view) = &config.verb;
            let json = ask(&view.admin, "/v1/config")?;
            Ok(shown(view.output, json, show::config))
        }
        Command::Explain(explain) => explain_request(explain, style),
        Command::Observe(_) => Err(Failure::Usage(
            "pilus observe is not there yet: this version records no flows; \
             `pilus status` and the metrics show what happens, `pilus explain URL` why"
                .to_owned(),
        )),
        Command::Version(_) => Ok(Output::good(format!("pilus {VERSION}\n"))),
    }
}

fn explain_request(explain: &Explain, style: Style) -> Result<Output, Failure> {
    let mut path = Path::new("/v1/explain")
        .parameter("url", Some(&explain.url))
        .parameter("method", explain.method.as_deref())
        .parameter("from", explain.from.as_deref());
    for header in &explain.header {
        path = path.parameter("header", Some(header));
    }
    let json = Agent::new(explain.admin.as_deref())?.want(&path)?;
    let good = json.at("outcome.served").and_then(Value::as_bool) == Some(true);
    let output = shown(explain.output, json, |json| show::explanation(json, style));
    Ok(Output { good, ..output })
}

/// JSON and YAML as they are, everything else by `table`.
fn shown(format: Format, json: Value, table: impl FnOnce(&Value) -> String) -> Output {
    Output::good(match format {
        Format::Json => to_json_pretty(&json),
        Format::Yaml => to_yaml(&json),
        Format::Table | Format::Wide => table(&json),
    })
}
