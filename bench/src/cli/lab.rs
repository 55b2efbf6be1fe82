//! `lab up | exec | status | down`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use fourwave_bench::lab::{
    self, DaemonOptions, Lab, LabConfig, LabError, NodeStatus, Preload, Ready, Side, Status,
    bench_binary,
};
use fourwave_bench::server;
use serde::{Deserialize, Serialize};

/// Where the lab's echo server listens.
const ECHO_PORT: u16 = 7777;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A lab beside the standard one: its namespaces are NAME-srv and NAME-cli
    #[arg(long, default_value = LabConfig::STANDARD, value_parser = name)]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build the lab with a daemon; one that is up with the same settings stays
    Up(UpArgs),
    /// Run a command on one side
    Exec(ExecArgs),
    /// Start a daemon on one side, unless it has one
    Daemon {
        /// Which side
        side: SideArg,
    },
    /// Show what is there
    Status,
    /// Remove the lab, and whatever crashed runs left
    Down,
}

/// The settings are written down with the lab, to be compared by the next `up`.
#[derive(Debug, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
struct UpArgs {
    /// Ports that programs may serve through the daemons
    #[arg(long, value_delimiter = ',', default_value = "80,7777,8080")]
    ports: Vec<u16>,
    /// Do not start the echo server on port 7777
    #[arg(long)]
    no_echo: bool,
    /// Bytes that the echo server sends back before it closes; 0: until the client closes
    #[arg(long, default_value_t = 64)]
    echo_size: usize,
    /// Start a daemon on the client's side too
    #[arg(long)]
    client_daemon: bool,
    /// Only namespaces and link: no daemon, no echo server
    #[arg(long, conflicts_with = "client_daemon")]
    no_daemon: bool,
    /// RX and TX queues of each veth end
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    queues: u32,
}

#[derive(Debug, clap::Args)]
struct ExecArgs {
    /// Put fourwave's sockets under the command (LD_PRELOAD); a side without a daemon gets one
    #[arg(long)]
    preload: bool,
    /// Ports that it serves over fourwave [default: the lab's on the server's side, none on the
    /// client's]
    #[arg(long, value_delimiter = ',', requires = "preload")]
    ports: Option<Vec<u16>>,
    /// Peers that it reaches over fourwave, as FOURWAVE_CONNECT names them [default: the server's
    /// addresses on the client's side, none on the server's]
    #[arg(long, requires = "preload")]
    connect: Option<String>,
    /// Which side
    side: SideArg,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SideArg {
    Server,
    Client,
}

impl From<SideArg> for Side {
    fn from(side: SideArg) -> Side {
        match side {
            SideArg::Server => Side::Server,
            SideArg::Client => Side::Client,
        }
    }
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Up(args) => up(&self.name, &args),
            Action::Exec(args) => exec(&self.name, &args),
            Action::Daemon { side } => daemon(&self.name, side.into()),
            Action::Status => status(&self.name),
            Action::Down => down(&self.name),
        }
    }
}

/// Part of file names: nothing that leads elsewhere, and short enough to tell apart in listings.
fn name(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain && (1..=32).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("expected up to 32 letters, digits and hyphens".to_owned())
}

fn up(name: &str, args: &UpArgs) -> anyhow::Result<ExitCode> {
    let wanted = serde_json::to_string(args)?;
    let present = match Lab::attach(name) {
        Ok(lab) => lab.status().ok().filter(|status| is_sound(&lab, status, &wanted)),
        Err(LabError::NotUp { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if present.is_some() {
        say("the lab is up already");
    } else {
        if lab::down(name)? {
            say("removed a lab that had other settings or was incomplete");
        }
        let mut lab = Lab::up(LabConfig::named(name).persistent().queues(args.queues))?;
        if let Err(error) = populate(&mut lab, args, &wanted) {
            // The error that made us give up says more than one from tidying up after it.
            let _ = lab.down();
            return Err(error);
        }
    }
    status(name)
}

/// Whether the lab was built to the end, with these settings, and everything in it still runs.
fn is_sound(lab: &Lab, status: &Status, wanted: &str) -> bool {
    lab.note() == wanted && status.programs.iter().all(|(_, alive)| *alive)
}

fn populate(lab: &mut Lab, args: &UpArgs, note: &str) -> anyhow::Result<()> {
    let options = DaemonOptions { ports: args.ports.clone(), ..DaemonOptions::default() };
    let mut sides = Vec::new();
    if !args.no_daemon {
        sides.push(Side::Server);
    }
    if args.client_daemon {
        sides.push(Side::Client);
    }
    for side in sides {
        let config = lab.daemon_config(side, &options);
        lab.start_daemon(side, &config)?;
    }
    if !args.no_daemon && !args.no_echo {
        if !args.ports.contains(&ECHO_PORT) {
            bail!("the echo server needs port {ECHO_PORT} among --ports; --no-echo leaves it out");
        }
        start_echo(lab, args.echo_size)?;
    }
    // Last: only a complete lab is one that a second `up` leaves alone.
    Ok(lab.set_note(note)?)
}

fn start_echo(lab: &mut Lab, size: usize) -> anyhow::Result<()> {
    let mut command = lab.server().command(bench_binary()?);
    command
        .arg("serve-fourwave")
        .arg(format!("--size={size}"))
        .env("FOURWAVE_SOCKET", lab.control_socket(Side::Server));
    for address in [lab.server().v4(), lab.server().v6()] {
        command.arg(format!("--listen={}", SocketAddr::new(address, ECHO_PORT)));
    }
    lab.spawn("echo", command, Ready::Prints(server::READY))?;
    Ok(())
}

fn exec(name: &str, args: &ExecArgs) -> anyhow::Result<ExitCode> {
    let side = args.side.into();
    let mut lab = Lab::attach(name)?;
    let (program, arguments) = args.command.split_first().expect("clap requires a command");
    let mut command = Command::new(program);
    command.args(arguments);
    if args.preload {
        let what = what_to_preload(&lab, side, args)?;
        // Before a daemon is started for nothing.
        lab::preload_library()?;
        start_missing_daemon(name, side)?;
        lab = Lab::attach(name)?;
        lab.preload(side, &mut command, &what)?;
        // A port that was forgotten would be served by the kernel, and nobody would notice.
        eprintln!("{what}");
    } else if lab.has_daemon(side) {
        command.env("FOURWAVE_SOCKET", lab.control_socket(side));
    }
    // The main thread becomes the command: no process of ours stays in between, so that signals
    // and the exit code are its own.
    lab.node(side).netns().enter()?;
    let error = command.exec();
    Err(anyhow::Error::new(error).context(format!("cannot run {}", program.display())))
}

fn what_to_preload(lab: &Lab, side: Side, args: &ExecArgs) -> anyhow::Result<Preload> {
    let allowed = settings_of(lab)?.ports;
    let ports = match (&args.ports, side) {
        (Some(ports), _) => ports.clone(),
        (None, Side::Server) => allowed.clone(),
        (None, Side::Client) => Vec::new(),
    };
    if let Some(port) = ports.iter().find(|port| !allowed.contains(port)) {
        bail!(
            "port {port} is not one that the lab's daemons let programs serve ({allowed:?}): \
               `lab up --ports` says which"
        );
    }
    let connect = args.connect.clone().or_else(|| match side {
        Side::Server => None,
        Side::Client => Some([false, true].map(|v6| server_peer(lab, v6)).join(",")),
    });
    Ok(Preload { ports, connect })
}

/// The server's address of one family with every port, as `FOURWAVE_CONNECT` names it.
fn server_peer(lab: &Lab, v6: bool) -> String {
    if v6 { lab.server().v6().to_string() } else { lab.server().v4().to_string() }
}

/// A daemon as a process of its own would have it: the command must not get a child that it knows
/// nothing of.
fn start_missing_daemon(name: &str, side: Side) -> anyhow::Result<()> {
    let status = Command::new(bench_binary()?)
        .args(["lab", "--name", name, "daemon", side.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    if !status.success() {
        bail!("no daemon on the {}'s side", side.name());
    }
    Ok(())
}

fn daemon(name: &str, side: Side) -> anyhow::Result<ExitCode> {
    let ports = settings_of(&Lab::attach(name)?)?.ports;
    lab::ensure_daemon(name, side, &DaemonOptions { ports, ..DaemonOptions::default() })?;
    let lab = Lab::attach(name)?;
    say(&format!("FOURWAVE_SOCKET={}", lab.control_socket(side).display()));
    Ok(ExitCode::SUCCESS)
}

/// What `up` was told.
fn settings_of(lab: &Lab) -> anyhow::Result<UpArgs> {
    serde_json::from_str(lab.note())
        .context("the lab was not built to the end by this version; `lab up` builds it anew")
}

fn status(name: &str) -> anyhow::Result<ExitCode> {
    let lab = Lab::attach(name)?;
    let Status { server, client, programs } = lab.status()?;
    for (side, node) in [(Side::Server, &server), (Side::Client, &client)] {
        show(side.name(), node);
        if lab.has_daemon(side) {
            say(&format!("        FOURWAVE_SOCKET={}", lab.control_socket(side).display()));
        }
    }
    let mut all_run = true;
    for (program, alive) in programs {
        let state = if alive { "runs" } else { "HAS ENDED" };
        let (role, pid, log) = (&program.role, program.process.pid, program.log.display());
        say(&format!("{role}: {state}, pid {pid}, log {log}"));
        all_run &= alive;
    }
    Ok(if all_run { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn down(name: &str) -> anyhow::Result<ExitCode> {
    let was_up = lab::down(name)?;
    say(if was_up { "the lab is removed" } else { "no lab was up" });
    for name in lab::remove_orphans()? {
        say(&format!("removed what a crashed run left: lab `{name}`"));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(side: &str, node: &NodeStatus) {
    let NodeStatus { namespace, interface, addresses, offloads_on, rps, xdp, .. } = node;
    let offloads =
        if offloads_on.is_empty() { "off".to_owned() } else { offloads_on.join(" ") + " on" };
    let xdp = xdp.unwrap_or("none");
    say(&format!(
        "{side}: namespace {namespace}, interface {interface}, XDP {xdp}, offloads {offloads}, \
         RPS {rps}"
    ));
    say(&format!("        {}", abridged(addresses)));
}

/// The first and last few of a long list.
fn abridged(addresses: &[String]) -> String {
    match addresses {
        [first, second, .., before_last, last] if addresses.len() > 6 => {
            format!("{first} {second} … {before_last} {last} ({} in all)", addresses.len())
        }
        all => all.join(" "),
    }
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn say(line: &str) {
    println!("{line}");
}
