//! `lab up | exec | status | down`.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::{Subcommand, ValueEnum};
use fourwave_bench::lab::{self, Lab, LabConfig, NodeStatus, Side};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build the lab; one that is up with the same settings stays
    Up(UpArgs),
    /// Run a command on one side
    Exec {
        /// Which side
        side: SideArg,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Show what is there
    Status,
    /// Remove the lab, and whatever crashed runs left
    Down,
}

#[derive(Debug, clap::Args)]
struct UpArgs {
    /// RX and TX queues of each veth end
    #[arg(long, default_value_t = 1)]
    queues: u32,
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
            Action::Up(args) => up(&args),
            Action::Exec { side, command } => exec(side.into(), &command),
            Action::Status => status(),
            Action::Down => down(),
        }
    }
}

fn up(args: &UpArgs) -> anyhow::Result<ExitCode> {
    let lab = Lab::up(LabConfig::standard().queues(args.queues))?;
    show(&lab)?;
    Ok(ExitCode::SUCCESS)
}

fn exec(side: Side, command: &[String]) -> anyhow::Result<ExitCode> {
    let lab = Lab::attach(LabConfig::STANDARD)?;
    let (program, arguments) = command.split_first().expect("clap requires a command");
    lab.node(side).netns().enter()?;
    let error = Command::new(program).args(arguments).exec();
    Err(anyhow::Error::new(error).context(format!("cannot run {program}")))
}

fn status() -> anyhow::Result<ExitCode> {
    show(&Lab::attach(LabConfig::STANDARD)?)?;
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn down() -> anyhow::Result<ExitCode> {
    let was_up = lab::down(LabConfig::STANDARD)?;
    println!("{}", if was_up { "lab removed" } else { "no lab was up" });
    for name in lab::remove_orphans()? {
        println!("removed what a crashed run left: lab `{name}`");
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn show(lab: &Lab) -> anyhow::Result<()> {
    let status = lab.status()?;
    for (side, node) in [("server", &status.server), ("client", &status.client)] {
        let NodeStatus { namespace, interface, addresses, offloads_on, rps } = node;
        let offloads =
            if offloads_on.is_empty() { "off".into() } else { offloads_on.join(" ") + " on" };
        println!(
            "{side}: namespace {namespace}, interface {interface}, offloads {offloads}, RPS {rps}"
        );
        println!("        {}", abridged(addresses));
    }
    for (program, alive) in &status.programs {
        let state = if *alive { "runs" } else { "HAS ENDED" };
        let log = program.log.display();
        println!("{}: {state}, pid {}, log {log}", program.role, program.process.pid);
    }
    Ok(())
}

/// The first few of a long list.
fn abridged(addresses: &[String]) -> String {
    match addresses {
        [first, second, .., before_last, last] if addresses.len() > 6 => {
            format!("{first} {second} … {before_last} {last} ({} in all)", addresses.len())
        }
        all => all.join(" "),
    }
}
